"""Connector processes that are there, seen by a TLS connection each, on TCP at the edge's port.

The end of such a connection, as a kernel ends it for a process that is gone, is a doubt, no more: whoever asked to be
told looks whether the process still answers on QUIC. A reset is nothing at all, since boxes on the way send those.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from warren.edge.judge.admission import ConnectorNode, Doorkeeper, Shown
from warren.fabric.aio.tls import HANDSHAKE_TIME, keep_alive, server_context
from warren.fabric.core.engine import ServerConfig
from warren.fabric.core.errors import ConfigError, DeniedError, WireError
from warren.fabric.core.messages import LENGTH
from warren.fabric.core.messages.presence import ALPN, CHALLENGE, LABEL, PRESENT, SEEN

log = structlog.get_logger()

UNPROVED = 256
"""TLS connections that have proved nothing, at once; each may stay so for ten seconds."""
PRESENT_MAX = 10_000
"""Connections that have: as many as the switch has attachments."""


class Presences:
    """The connections of connector processes. `doubt(key)`: the process with this key may be gone."""

    def __init__(self, doorkeeper: Doorkeeper, doubt: Callable[[bytes], None]) -> None:
        self.counters: Counter[str] = Counter()
        self._doorkeeper = doorkeeper
        self._doubt = doubt
        self._unproved = 0
        self._there: Counter[bytes] = Counter()
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._there)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its handshake to its end."""
        if self._unproved >= UNPROVED or self._there.total() >= PRESENT_MAX:
            self.counters["too_many"] += 1
            writer.transport.abort()
            return
        self._open[writer] = asyncio.current_task()
        try:
            key = await self._prove(reader, writer)
            if key is not None:
                await self._watch(key, reader)
        except (OSError, ssl.SSLError) as error:
            log.debug("a TLS connection was lost", error=str(error))
        finally:
            writer.transport.abort()
            self._open.pop(writer, None)

    async def _prove(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        self._unproved += 1
        try:
            async with asyncio.timeout(HANDSHAKE_TIME):
                keep_alive(writer.get_extra_info("socket"))
                challenge = os.urandom(CHALLENGE)
                writer.write(challenge)
                key = self._identify(challenge, await _message(reader))
                writer.write(SEEN)
                await writer.drain()
                return key
        except (WireError, DeniedError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.counters["refused"] += 1
            log.debug("a TLS connection was refused", detail=str(error))
            return None
        finally:
            self._unproved -= 1

    def _identify(self, challenge: bytes, body: bytes) -> bytes:
        said = PRESENT.decode(body)
        shown = Shown("connector", said.key, said.signature, said.certificates, said.statement)
        node = self._doorkeeper.identify(LABEL, challenge, shown)
        assert isinstance(node, ConnectorNode)  # the role said so
        return node.key

    async def _watch(self, key: bytes, reader: asyncio.StreamReader) -> None:
        self._there[key] += 1
        self.counters["seen"] += 1
        try:
            ended = await reader.read(1) == b""
        finally:
            self._there[key] -= 1
            if not self._there[key]:
                del self._there[key]
        if ended and key not in self._there and not self._closing:
            self.counters["ended"] += 1
            self._doubt(key)

    async def close(self) -> None:
        """Ends every connection; nobody is doubted for that."""
        self._closing = True
        tasks = [task for task in self._open.values() if task is not None]
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _message(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(LENGTH), "big")
    if length > PRESENT.limit:
        raise WireError(f"a message of {length} bytes")
    return await reader.readexactly(length)


@asynccontextmanager
async def listening(presences: Presences, address: tuple[str, int], shown: ServerConfig) -> AsyncIterator[None]:
    """Serves on TCP at the address of the UDP port. Raises ConfigError."""
    context = server_context(ServerConfig((ALPN,), shown.chain, shown.key))
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        server = await asyncio.start_server(
            presences.serve, sock=sock, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIME, backlog=UNPROVED
        )
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"TCP port {address[1]} can't be had: {error.strerror}; connectors show there that they live"
        ) from None
    try:
        yield
    finally:
        server.close()
        await presences.close()
