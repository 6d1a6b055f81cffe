"""What an edge is told when it starts."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from warren.edge.dns.settings import DnsSettings
from warren.edge.places import ADMIN_SOCKET, STATE_DIRECTORY, STORE_FILE
from warren.fabric.core.engine import Controller
from warren.fabric.daemon.settings import Endpoint, LogSettings
from warren.fabric.engines import EngineName


class EdgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that `warren edge run` knows from outside: edge.yaml and the flags."""

    state_dir: Path = STATE_DIRECTORY
    """What `warren edge init` made: keys, certificates, the list of edges, the store."""
    listen_host: str = "::"
    """IP address of the sockets. `::`: all of IPv6 and of IPv4; of IPv4 alone where the kernel has no IPv6."""
    listen_port: int = 0
    """UDP port; 0: the one that the list of edges gives this edge."""
    admin_socket: Path = msgspec.field(default=ADMIN_SOCKET, name="socket")
    store: str = ""
    """Where the store is: "" for a file in the state directory, or postgresql+asyncpg://USER@HOST/DATABASE."""
    store_password_file: Path | None = None
    """File of the database's password; None: where libpq looks (PGPASSFILE, ~/.pgpass)."""
    lease: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 600.0
    """Seconds for which the edge grants flows although the store can't be read."""
    engine: EngineName = "auto"
    controller: Controller = "warren"
    """Congestion control of the native engine."""
    metrics: Endpoint | None = None
    """Where /ready and /metrics are served; None: nowhere."""
    log: LogSettings = LogSettings()
    dns: DnsSettings = DnsSettings()
    """What devices' DNS queries are answered with."""

    def __post_init__(self) -> None:
        try:
            ipaddress.ip_address(self.listen_host)
        except ValueError:
            raise ValueError(f"listen_host {self.listen_host}: an IP address of this host is needed") from None
        if urlsplit(self.store).password is not None:
            raise ValueError("store: no password may be in it; name its file as store_password_file")
        if not 0 <= self.listen_port <= 65_535:
            raise ValueError(f"listen_port {self.listen_port}: 1 to 65535, or 0 for the port in the list of edges")

    def store_place(self) -> Path | str:
        """The store's file or URL."""
        return self.store or self.state_dir / STORE_FILE
