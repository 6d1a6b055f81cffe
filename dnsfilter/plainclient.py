"""One question to an upstream in the clear: UDP on a socket and port of its own, TCP when that was not enough.

A spoofed reply has to guess 16 bits of id, the port that the kernel drew, the case of the name (0x20) and, where the
upstream knows cookies, 64 bits more, from the address that was asked: sockets are connected.
"""

from __future__ import annotations

import asyncio

from warren.dnsfilter.core import upstream as core
from warren.dnsfilter.core.config import Upstream
from warren.fabric.core import dnswire as wire
from warren.fabric.core.dnsreply import Reply, read_reply


class _Exchange(asyncio.DatagramProtocol):
    """One question on one UDP socket."""

    def __init__(self, asking: core.Asking) -> None:
        self._asking = asking
        self._wrong = 0
        self.answer: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        """The reply, or None: somebody guesses, use TCP."""

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self.answer.done():
            return
        reply = read_reply(data)
        if reply is not None and core.matches(self._asking, reply):
            self.answer.set_result(None if core.without_cookie(self._asking, reply) else reply)
            return
        self._wrong += 1
        if self._wrong >= core.WRONG_MAX:
            self.answer.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def ask_udp(upstream: Upstream, asking: core.Asking) -> Reply | None:
    """The reply; None: what came can't be trusted, ask over TCP. OSError: nobody is there."""
    loop = asyncio.get_running_loop()
    transport, exchange = await loop.create_datagram_endpoint(
        lambda: _Exchange(asking), remote_addr=(upstream.host, upstream.port)
    )
    try:
        transport.sendto(asking.message())
        return await exchange.answer
    finally:
        transport.close()


async def ask_tcp(upstream: Upstream, asking: core.Asking) -> Reply | None:
    """The reply; None: it answers another question. OSError or EOFError: no connection."""
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    try:
        message = asking.message()
        writer.write(len(message).to_bytes(2, "big") + message)
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = read_reply(await reader.readexactly(size))
    finally:
        writer.close()
    return reply if reply is not None and core.matches(asking, reply) else None


def needs_tcp(asking: core.Asking, reply: Reply | None) -> bool:
    """Whether what came over UDP is cut, in another case, wants another cookie or none, or can't be trusted."""
    if reply is None or reply.truncated or reply.raw != asking.raw:
        return True
    return bool(asking.cookie) and reply.rcode in (wire.BADCOOKIE, wire.FORMERR)
