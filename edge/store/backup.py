"""A consistent copy of the store while it is in use, and the way back. SQLite only, and synchronous: for commands.

A restore begins a new epoch, above that of the copy and of the store that it replaces, so that nobody takes what is
signed from then on for older than what was signed before.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from warren.edge.store.database import open_store
from warren.fabric.core.errors import ConfigError


def backup(store: Path, target: Path) -> None:
    """Copies the store, as it is at one moment, into a new 0600 file. Raises ConfigError."""
    if not store.is_file():
        raise ConfigError(f"there is no store at {store}")
    _create(target)
    try:
        _copy(store, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


async def restore(source: Path, store: Path, now_ms: int) -> int:
    """Puts a copy in the place of the store, whose edge must not be running (`ensure_free`); gives the epoch.

    The store is replaced in one step, after the copy was checked, brought up to the schema of this program and given
    its epoch. Raises ConfigError; the store is untouched then.
    """
    _check(source)
    above = epoch_of(store)
    fresh = store.with_name(store.name + ".new")
    fresh.unlink(missing_ok=True)
    _create(fresh)
    try:
        _copy(source, fresh)
        repository = await open_store(fresh)
        try:
            epoch = await repository.new_epoch(now_ms, above=above)
        finally:
            await repository.close()
        _settle(fresh)
        _replace(fresh, store)
    except BaseException:
        for path in (fresh, *_beside(fresh)):
            path.unlink(missing_ok=True)
        raise
    return epoch


def epoch_of(store: Path) -> int:
    """The store's epoch, whatever schema it has; 0 if there is none or it can't be read."""
    with suppress(sqlite3.Error), closing(_connect(store)) as connection:
        row = connection.execute("SELECT epoch FROM state WHERE id = 1").fetchone()
        return int(row[0]) if row else 0
    return 0


def _check(source: Path) -> None:
    if not source.is_file():
        raise ConfigError(f"there is no backup at {source}")
    try:
        with closing(_connect(source)) as connection:
            verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            connection.execute("SELECT epoch, revision FROM state WHERE id = 1").fetchone()
    except sqlite3.Error as error:
        raise ConfigError(f"{source} is no backup of a store: {error}") from None
    if verdict != "ok":
        raise ConfigError(f"{source} is damaged: {verdict}")


def _copy(source: Path, target: Path) -> None:
    try:
        with closing(_connect(source)) as reading, closing(sqlite3.connect(target)) as writing:
            reading.backup(writing)
        _settle(target)
    except sqlite3.Error as error:
        raise ConfigError(f"{source} can't be copied to {target}: {error}") from None


def _settle(path: Path) -> None:
    """Leaves one file, with no write-ahead log beside it."""
    with closing(_connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def _replace(fresh: Path, store: Path) -> None:
    """A write-ahead log of the old store must not be replayed into the new one."""
    for path in _beside(store):
        path.unlink(missing_ok=True)
    fresh.replace(store)
    directory = os.open(store.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _beside(store: Path) -> tuple[Path, Path]:
    return store.with_name(store.name + "-wal"), store.with_name(store.name + "-shm")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path.absolute().as_uri() + "?mode=rw", uri=True)


def _create(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise ConfigError(f"{path} is there already: name a new file") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None
