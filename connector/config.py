"""The connector's settings."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from warren.connector.gate import Ceiling
from warren.fabric.core.errors import ConfigError

TOKEN_LIMIT = 16_384
"""Bytes of a token file that are read; a token has about 1,200."""


@dataclass(frozen=True, slots=True)
class ConnectorConfig:
    """What `warren connector run` runs with."""

    token: str
    ceiling: Ceiling
    engine: str | None = None
    drain: float = 30.0
    """Seconds that flows get to end after SIGTERM."""


def read_token(source: str) -> str:
    """The token in a file of mode 0600 (or stricter), or on standard input for "-". Raises ConfigError."""
    if source == "-":
        text = sys.stdin.read(TOKEN_LIMIT)
    else:
        path = Path(source)
        try:
            mode = path.stat().st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"{path} can be read by others (mode {stat.S_IMODE(mode):o}): chmod 600 {path}")
            with path.open() as file:
                text = file.read(TOKEN_LIMIT)
        except OSError as error:
            raise ConfigError(f"the token file {path} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is no token file: it is not text") from None
    if not text.strip():
        raise ConfigError("the token is empty: `warren tunnel create NAME --token-file FILE` makes one")
    return text.strip()


def credential_file(name: str) -> str | None:
    """A credential that systemd passed (LoadCredential=NAME:…), if there is one."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    path = Path(folder) / name
    return str(path) if path.exists() else None
