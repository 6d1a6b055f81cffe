"""Where an edge is: its host name or address in the list of edges → a socket address."""

from __future__ import annotations

import asyncio
import socket

from warren.fabric.core.engine import Address
from warren.fabric.identity.statements import Edge


async def edge_address(edge: Edge) -> Address:
    """The first address of the edge's host. Raises OSError if its name can't be resolved."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(edge.host, edge.port, type=socket.SOCK_DGRAM)
    host, port = found[0][4][:2]
    return str(host), int(port)
