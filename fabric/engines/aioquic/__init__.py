"""The engine on aioquic, pure Python: always there.

core.py         QuicConnection with the few methods that we need otherwise; every private name is explained there
controller.py   congestion control and pacing
credentials.py  certificates and keys
streams.py      what is kept for a stream
connection.py   the face `Connection`
endpoint.py     the face `Endpoint`
"""

from __future__ import annotations

from typing import Literal

from warren.fabric.core.engine import Buffer, ClientConfig, Controller, ServerConfig
from warren.fabric.engines.aioquic.connection import AioquicConnection
from warren.fabric.engines.aioquic.core import Core, client_configuration, server_configuration
from warren.fabric.engines.aioquic.endpoint import AioquicEndpoint
from warren.fabric.engines.aioquic.packets import initial_of


class AioquicEngine:
    """`Engine` on aioquic."""

    name: Literal["aioquic", "native"] = "aioquic"
    controller: Controller = "cubic"

    def connect(self, config: ClientConfig, now: float) -> AioquicConnection:
        """A client connection; its first datagram waits in `transmit`. Raises ConfigError if the root is no PEM."""
        return AioquicConnection(Core(client_configuration(config), config.limits), config.limits, now)

    def accept(self, config: ServerConfig, first: Buffer, now: float) -> AioquicConnection | None:
        """A server connection for the datagram `first`; None if that is no Initial packet of QUIC version 1."""
        initial = initial_of(bytes(first))
        if initial is None:
            return None
        core = Core(server_configuration(config), config.limits, original=initial.destination)
        return AioquicConnection(core, config.limits, now)

    def endpoint(self, config: ServerConfig, now: float) -> AioquicEndpoint:
        """Many server connections on one socket. Raises ConfigError if chain or key can't be read."""
        return AioquicEndpoint(config)
