"""The connector's settings."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from warren.connector.gate import Ceiling
from warren.connector.revocations import LEASE
from warren.fabric.core.engine import Controller
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.settings import Endpoint, LogSettings
from warren.fabric.engines import EngineName

HOLD = 900.0
"""Seconds for which the flows of a silent agent are kept (protocol.md, section 3)."""
TOKEN_LIMIT = 16_384
"""Bytes of a token file that are read; a token has about 1,200."""


class ConnectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `warren connector run` runs with: connector.yaml and the flags."""

    token_file: str = ""
    """File of the tunnel's token; "-": standard input. What systemd passes as a credential comes before it."""
    ceiling: Ceiling = msgspec.field(default_factory=Ceiling, name="allow")
    drain: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 30.0
    """Seconds that flows get to end after SIGTERM."""
    lease: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = LEASE
    """Seconds for which flows go on although no edge can be reached that confirms them."""
    hold: Annotated[float, msgspec.Meta(ge=3, le=86_400)] = HOLD
    """Seconds for which the flows of an agent that is not heard are kept."""
    engine: EngineName = "auto"
    controller: Controller = "warren"
    """Congestion control of the native engine."""
    metrics: Endpoint | None = None
    """Where /ready and /metrics are served; None: nowhere."""
    log: LogSettings = LogSettings()

    def read_token(self, given: str | None = None) -> str:
        """The token: from the file that a flag gave, systemd's credential, or the file in the settings, in this order.

        Raises ConfigError.
        """
        if given is None and (passed := credential_file("token")) is not None:
            return read_token(passed, private=False)
        source = given or self.token_file
        if not source:
            raise ConfigError("no token: use --token-file FILE, or --token-file - for standard input")
        return read_token(source)

    def reread_token(self, given: str | None = None) -> str:
        """The same file once more. Raises ConfigError, also where there is none to be read again."""
        if given is None and credential_file("token") is not None:
            raise ConfigError("systemd passed it as a credential when the service started: restart the service")
        if (given or self.token_file) == "-":
            raise ConfigError("it came on standard input: start the connector anew, or run it with a file")
        return self.read_token(given)


def read_token(source: str, *, private: bool = True) -> str:
    """The token in a file, or on standard input for "-". Raises ConfigError, also for a file that others can read.

    `private=False`: not looked at. Systemd's credentials carry an ACL, which shows as a group's permission.
    """
    if source == "-":
        text = sys.stdin.read(TOKEN_LIMIT)
    else:
        path = Path(source)
        try:
            mode = path.stat().st_mode
            if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
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
