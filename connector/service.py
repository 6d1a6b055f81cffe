"""The connector as a service: a user of its own that owns nothing, and the token as a credential."""

from __future__ import annotations

from pathlib import Path

from warren.connector.config import ConnectorConfig
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.service import NO_DEVICES, Unit, path_setting, run_arguments

CAPABILITIES = ("CAP_NET_RAW",)
"""For ping, where the host allows no unprivileged ICMP sockets."""


def unit(config: ConnectorConfig, file: Path | None) -> Unit:
    """Its unit. `file`: the settings, if they are not in the usual place. Raises ConfigError: no token file."""
    source = config.token_file
    if not source or source == "-":
        raise ConfigError("a service needs its token in a file: give --token-file FILE")
    if not Path(source).is_file():
        raise ConfigError(f"there is no token file {source}: `warren tunnel create NAME --token-file FILE` makes one")
    lines = (
        "DynamicUser=yes",
        "AmbientCapabilities=CAP_NET_RAW",
        f"LoadCredential=token:{path_setting(Path(source))}",
        *NO_DEVICES,
    )
    arguments = run_arguments("connector", "run", config=file)
    return Unit("connector", arguments, CAPABILITIES, lines, (), config.log.file, config.drain + 10)
