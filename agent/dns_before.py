"""The resolvers that the device had before: asked about names that are not ours, past our own capture."""

from __future__ import annotations

import asyncio
import socket

from warren.agent.dns_private import Transport
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

TRIES, WAIT = 2, 2.0
"""Times that each is asked, and seconds for an answer."""


class ResolversBefore:
    """Passes queries on as they are."""

    def __init__(self, mark: int) -> None:
        """`mark`: SO_MARK of what goes to them, so that it does not come back to us."""
        self._mark = mark
        self.addresses: tuple[str, ...] = ()

    async def ask(self, message: bytes, transport: Transport) -> bytes:
        """What they say to the query as the app asked it. Raises DeniedError."""
        for _ in range(TRIES):
            for upstream in self.addresses:
                try:
                    async with asyncio.timeout(WAIT):
                        return await self._forward(upstream, message, transport)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
        raise DeniedError(Reason.RESOLVER_FAILED, "none of the system's own resolvers answers")

    async def _forward(self, upstream: str, message: bytes, transport: Transport) -> bytes:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in upstream else socket.AF_INET
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        with socket.socket(family, kind) as sock:
            sock.setblocking(False)
            if self._mark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
            await loop.sock_connect(sock, (upstream, 53))
            if transport == "udp":
                await loop.sock_sendall(sock, message)
                while True:
                    answer = await loop.sock_recv(sock, 65_535)
                    if answer[:2] == message[:2]:
                        return answer
            return await _exchange(loop, sock, message)


async def _exchange(loop: asyncio.AbstractEventLoop, sock: socket.socket, message: bytes) -> bytes:
    await loop.sock_sendall(sock, len(message).to_bytes(2, "big") + message)
    buffer = bytearray()
    while len(buffer) < 2 or len(buffer) < 2 + int.from_bytes(buffer[:2], "big"):
        data = await loop.sock_recv(sock, 65_535)
        if not data:
            raise asyncio.IncompleteReadError(bytes(buffer), None)
        buffer += data
    return bytes(buffer[2:])
