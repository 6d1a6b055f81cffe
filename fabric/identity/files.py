"""Private files: 0600, written whole or not at all; a file that others can read is refused."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from warren.fabric.core.errors import ConfigError

FILE_LIMIT = 65_536
"""Bytes of the longest private file: a token has about 2,000."""


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Writes a 0600 file atomically. Raises ConfigError; an existing file stays unless `replace`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        _write_new(temporary, data)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
        _sync(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path} exists already, and is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_private(path: Path) -> bytes:
    """The contents of a file that only its owner can read. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise ConfigError(f"{path} can be read or changed by others: run chmod 600 {path}")
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    if len(data) > FILE_LIMIT:
        raise ConfigError(f"{path} is longer than {FILE_LIMIT} bytes: it is no key and no token")
    return data


def private_directory(path: Path) -> None:
    """Makes the directory (0700) if it is not there. Raises ConfigError, also if others may look into it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"the directory {path} can't be made: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"the directory {path} is open to others: run chmod 700 {path}")


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
