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
from contextlib import ExitStack
from pathlib import Path

from warren.edge import state
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.files import FILE_LIMIT, private_directory, read_private, write_private

STORE_LIMIT = 8 << 30
"""Bytes of a store that is taken out of an archive."""


def backup(state_dir: Path, target: Path) -> None:
    """Writes a new 0600 file, consistent also while the edge runs. Raises ConfigError; leaves nothing then."""
    from warren.edge.store import backup as store  # SQLAlchemy: only where it is used

    state.load_credentials(state_dir)
    with ExitStack() as undo, tempfile.TemporaryDirectory(prefix=".backup-", dir=_parent(target)) as place:
        copy = Path(place) / state.STORE
        store.backup(state_dir / state.STORE, copy)
        descriptor = _create(target)
        undo.callback(target.unlink)
        try:
            with open(descriptor, "wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    for name in state.CREDENTIALS:
                        archive.add(state_dir / name, name, recursive=False, filter=_anonymous)
                    archive.add(copy, state.STORE, recursive=False, filter=_anonymous)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(f"{target} can't be written: {error.strerror}") from None
        undo.pop_all()


def restore(source: Path, state_dir: Path, *, force: bool = False) -> int:
    """Puts a backup into `state_dir`, where no edge may run; gives the new epoch of the store.

    Raises ConfigError: no backup, an edge runs, or something is there and `force` is not set.
    """
    with tempfile.TemporaryDirectory(prefix="warren-restore-") as place:
        unpacked = Path(place)
        _unpack(source, unpacked)
        state.load_credentials(unpacked)
        _refuse_full(state_dir, force=force)
        fresh = not state_dir.exists()
        private_directory(state_dir)
        with ExitStack() as undo:
            if fresh:
                undo.callback(shutil.rmtree, state_dir)
            with state.locked(state_dir):
                epoch = _replace(unpacked, state_dir)
            undo.pop_all()
    return epoch


def _replace(unpacked: Path, state_dir: Path) -> int:
    from warren.edge.store import backup as store

    epoch = asyncio.run(store.restore(unpacked / state.STORE, state_dir / state.STORE, int(time.time() * 1000)))
    for name in state.CREDENTIALS:
        write_private(state_dir / name, read_private(unpacked / name), replace=True)
    return epoch


def _refuse_full(state_dir: Path, *, force: bool) -> None:
    if state_dir.exists() and not state_dir.is_dir():
        raise ConfigError(f"{state_dir} is no directory")
    if not force and state_dir.exists() and any(entry.name != state.LOCK for entry in state_dir.iterdir()):
        raise ConfigError(f"{state_dir} is not empty: --force replaces the edge in it")


def _unpack(source: Path, place: Path) -> None:
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
