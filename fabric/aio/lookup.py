"""Where an edge is: its host name or address in the list of edges → a socket address; and whence it is reached.

A host that changes networks has another address of its own, or only one family left: `Whereabouts` notices both.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from warren.fabric.core.engine import Address
from warren.fabric.identity.statements import Edge

LOOK_UP_TIME = 1.0
"""Seconds for a name server, if addresses are known from before: that of the last network answers no more."""
SO_MARK = 36


async def edge_addresses(edge: Edge) -> tuple[Address, ...]:
    """All addresses of the edge's host, the best first (RFC 6724). Raises OSError if its name can't be resolved."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(edge.host, edge.port, type=socket.SOCK_DGRAM)
    return tuple((str(address[0]), int(address[1])) for *_, address in found)


async def edge_address(edge: Edge) -> Address:
    """The best of them. Raises OSError."""
    return (await edge_addresses(edge))[0]


def any_address(towards: Address) -> Address:
    """What a socket is bound to that sends there."""
    return ("::" if ":" in towards[0] else "0.0.0.0", 0)  # noqa: S104


def source_address(towards: Address, mark: int = 0) -> str:
    """The address of this host that packets to there leave from; "" without a route. Sends nothing."""
    family = socket.AF_INET6 if ":" in towards[0] else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        sock.connect(towards)
        return str(sock.getsockname()[0])
    return ""


class Whereabouts:
    """One edge's address in use, and the own address that leads there."""

    def __init__(self, edge: Edge, mark: int = 0) -> None:
        self.address: Address | None = None
        self._edge = edge
        self._mark = mark
        self._known: tuple[Address, ...] = ()
        self._source = ""

    async def look_up(self, attempt: int) -> Address:
        """The address for this attempt (0, 1, …): those with a route in turn. Raises OSError if none was ever known."""
        try:
            async with asyncio.timeout(LOOK_UP_TIME if self._known else None):
                self._known = await edge_addresses(self._edge)
        except OSError:  # TimeoutError too
            if not self._known:
                raise
        able = [address for address in self._known if source_address(address, self._mark)] or self._known
        return self._use(able[attempt % len(able)])

    def moved(self) -> bool:
        """Whether the way there is another than before: from another own address, or to another of the edge's."""
        if self.address is None:
            return False
        before = self.address, self._source
        ways = (self.address, *self._known)
        self._use(next((way for way in ways if source_address(way, self._mark)), self.address))
        return bool(self._source) and before != (self.address, self._source)

    def _use(self, address: Address) -> Address:
        self.address, self._source = address, source_address(address, self._mark)
        return address
