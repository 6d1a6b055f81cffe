"""What an edge is told when it starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from warren.fabric.core.errors import ConfigError

STATE_DIRECTORY = Path("/var/lib/warren/edge")
ADMIN_SOCKET = Path("/run/warren/edge.sock")
PORT = 4433
"""UDP port of an edge unless `--public` says another: what QUIC is often tried on, and free of privileges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """Everything that `warren edge run` knows from outside. Raises ConfigError when made of something else."""

    state_dir: Path = STATE_DIRECTORY
    """What `warren edge init` made: keys, certificates, the list of edges, the store."""
    listen_host: str = "0.0.0.0"  # noqa: S104 (an edge is there to be reached)
    """IP address of the UDP sockets."""
    listen_port: int = 0
    """UDP port; 0: the one that the list of edges gives this edge."""
    admin_socket: Path = ADMIN_SOCKET
    engine: str | None = None
    """QUIC engine; None: the best one installed."""

    def __post_init__(self) -> None:
        try:
            ipaddress.ip_address(self.listen_host)
        except ValueError:
            raise ConfigError(f"--listen-host {self.listen_host}: an IP address of this host is needed") from None
        if not 0 <= self.listen_port <= 65_535:
            raise ConfigError(f"--listen-port {self.listen_port}: 1 to 65535, or 0 for the port in the list of edges")
