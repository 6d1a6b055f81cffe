"""Backup and restore of a whole edge: its store and what makes it this edge; no key of the administrator.

The file is a tar archive (0600) of the files that `state.py` names, and of nothing else; a restore takes no other
name out of one, nor anything that is no plain file.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from warren.edge import state
from warren.edge.config import EdgeConfig
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.files import FILE_LIMIT, private_directory, read_private, write_private

STORE_LIMIT = 8 << 30
"""Bytes of a store that is taken out of an archive."""


def backup(state_dir: Path, target: Path, *, elsewhere: bool = False) -> None:
    """Writes a new 0600 file, consistent also while the edge runs. Raises ConfigError; leaves nothing then.

    `elsewhere`: the store is in a database with copies of its own, and stays out of it.
    """
    from warren.edge.store import backup as store  # SQLAlchemy: only where it is used

    state.load_credentials(state_dir)
    with ExitStack() as undo, tempfile.TemporaryDirectory(prefix=".backup-", dir=_parent(target)) as place:
        copy = Path(place) / state.STORE
        if not elsewhere:
            store.backup(state_dir / state.STORE, copy)
        files = {name: state_dir / name for name in state.CREDENTIALS}
        _pack(target, files if elsewhere else files | {state.STORE: copy}, undo)
        undo.pop_all()


def bundle(target: Path, credentials: Mapping[str, bytes]) -> None:
    """A new edge's credentials, to be carried to its host, where `join` puts them in place. Raises ConfigError."""
    with ExitStack() as undo, tempfile.TemporaryDirectory(prefix=".edge-", dir=_parent(target)) as place:
        for name, data in credentials.items():
            write_private(Path(place) / name, data)
        _pack(target, {name: Path(place) / name for name in credentials}, undo)
        undo.pop_all()


def join(source: Path, state_dir: Path, *, force: bool = False) -> state.Credentials:
    """Makes `state_dir` the edge that `bundle` wrote. Raises ConfigError, as `restore` does."""
    with tempfile.TemporaryDirectory(prefix="warren-join-") as place:
        unpacked = Path(place)
        _unpack(source, unpacked, elsewhere=True)
        credentials = state.load_credentials(unpacked)
        _refuse_full(state_dir, force=force)
        private_directory(state_dir)
        with state.locked(state_dir):
            _put_credentials(unpacked, state_dir)
    return credentials


def _pack(target: Path, files: Mapping[str, Path], undo: ExitStack) -> None:
    descriptor = _create(target)
    undo.callback(target.unlink)
    try:
        with open(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for name, path in files.items():
                    archive.add(path, name, recursive=False, filter=_anonymous)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{target} can't be written: {error.strerror}") from None


def _put_credentials(unpacked: Path, state_dir: Path) -> None:
    for name in state.CREDENTIALS:
        write_private(state_dir / name, read_private(unpacked / name), replace=True)


def restore(source: Path, state_dir: Path, *, force: bool = False, config: EdgeConfig | None = None) -> int:
    """Puts a backup into `state_dir`, where no edge may run; gives the new epoch of the store.

    `config`: says where the store is; one that is elsewhere only begins its epoch. Raises ConfigError: no backup, an
    edge runs, or something is there and `force` is not set.
    """
    elsewhere = config if config is not None and config.store else None
    with tempfile.TemporaryDirectory(prefix="warren-restore-") as place:
        unpacked = Path(place)
        _unpack(source, unpacked, elsewhere=elsewhere is not None)
        state.load_credentials(unpacked)
        _refuse_full(state_dir, force=force)
        fresh = not state_dir.exists()
        private_directory(state_dir)
        with ExitStack() as undo:
            if fresh:
                undo.callback(shutil.rmtree, state_dir)
            with state.locked(state_dir):
                epoch = _begin_epoch(elsewhere) if elsewhere is not None else _restore_store(unpacked, state_dir)
                _put_credentials(unpacked, state_dir)
            undo.pop_all()
    return epoch


def _restore_store(unpacked: Path, state_dir: Path) -> int:
    from warren.edge.store import backup as store

    return asyncio.run(store.restore(unpacked / state.STORE, state_dir / state.STORE, int(time.time() * 1000)))


def _begin_epoch(config: EdgeConfig) -> int:
    """Of a database that was restored by its own means: what was signed before is older than what it says now."""
    from warren.edge.store.database import open_store

    async def begin() -> int:
        repository = await open_store(config.store, password_file=config.store_password_file)
        try:
            return await repository.new_epoch(int(time.time() * 1000))
        finally:
            await repository.close()

    return asyncio.run(begin())


def _refuse_full(state_dir: Path, *, force: bool) -> None:
    if state_dir.exists() and not state_dir.is_dir():
        raise ConfigError(f"{state_dir} is no directory")
    if not force and state_dir.exists() and any(entry.name != state.LOCK for entry in state_dir.iterdir()):
        raise ConfigError(f"{state_dir} is not empty: --force replaces the edge in it")


def _unpack(source: Path, place: Path, *, elsewhere: bool) -> None:
    _refuse_open(source)
    wanted = {*state.CREDENTIALS, state.STORE}
    try:
        with tarfile.open(source, mode="r:") as archive:
            for member in archive:
                if member.name not in wanted or not member.isreg():
                    raise ConfigError(f"{source} is no backup of an edge: it holds {member.name[:80]!r}")
                wanted.discard(member.name)
                _extract(archive, member, place / member.name)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ConfigError(f"{source} can't be read as a backup: {_one_line(error)}") from None
    if elsewhere and state.STORE not in wanted:
        raise ConfigError(f"{source} holds a store, and the settings say that the store is in PostgreSQL")
    if wanted == {state.STORE}:
        if elsewhere:
            return
        raise ConfigError(f"{source} holds no store: it was in PostgreSQL, so say where, with --store")
    if wanted:
        raise ConfigError(f"{source} is no whole backup of an edge: {', '.join(sorted(wanted))} is missing")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    limit = STORE_LIMIT if member.name == state.STORE else FILE_LIMIT
    content = archive.extractfile(member)
    if content is None or member.size > limit:
        raise ConfigError(f"the backup's {member.name} is longer than {limit} bytes")
    with open(_create(target), "wb") as file:
        while block := content.read(1 << 20):
            file.write(block)


def _refuse_open(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigError(f"{path} holds keys and can be read or changed by others: run chmod 600 {path}")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _parent(target: Path) -> Path:
    if not target.parent.is_dir():
        raise ConfigError(f"{target} can't be written: there is no directory {target.parent}")
    if target.exists():
        raise ConfigError(f"{target} is there already: name a new file")
    return target.parent


def _create(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None


def _one_line(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
