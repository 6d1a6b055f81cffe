"""An encrypted copy of the administrator's keys, and the way back.

The content is a MessagePack map of file name to bytes, of exactly the files that `admin.py` names.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec

from warren.edge.admin import FILES, Administrator
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.files import private_directory, read_private, write_private
from warren.fabric.identity.sealed import seal, unseal


def export(admin_dir: Path, target: Path, passphrase: str) -> str:
    """Writes a new 0600 file, sealed; gives the network's fingerprint. Raises ConfigError."""
    administrator = Administrator(admin_dir)
    administrator.network_key()  # which belongs to the certificate, or nothing is copied
    content = msgspec.msgpack.encode({name: read_private(admin_dir / name) for name in FILES})
    write_private(target, seal(content, passphrase))
    return administrator.fingerprint


def bring_back(source: Path, admin_dir: Path, passphrase: str) -> str:
    """Puts the keys into a directory that holds none; gives the network's fingerprint. Raises ConfigError."""
    if any((admin_dir / name).exists() for name in FILES):
        raise ConfigError(f"a network's keys are in {admin_dir} already: give another --admin-dir")
    files = _files(source, passphrase)
    fresh = not admin_dir.exists()
    with ExitStack() as undo:
        private_directory(admin_dir)
        if fresh:
            undo.callback(admin_dir.rmdir)
        for name, data in files.items():
            write_private(admin_dir / name, data)
            undo.callback((admin_dir / name).unlink)
        administrator = Administrator(admin_dir)
        administrator.network_key()
        undo.pop_all()
    return administrator.fingerprint


def _files(source: Path, passphrase: str) -> dict[str, bytes]:
    try:
        files = msgspec.msgpack.decode(unseal(read_private(source), passphrase), type=dict[str, bytes])
    except msgspec.DecodeError:
        files = {}
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}" if str(source) not in str(error) else str(error)) from None
    if set(files) != set(FILES):
        raise ConfigError(f"{source} is no copy of an administrator's keys")
    return files
