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
from warren.edge.switch.budget import source_prefix
from warren.fabric.aio.tls import HANDSHAKE_TIME, keep_alive, server_context
from warren.fabric.core.engine import ServerConfig
from warren.fabric.core.errors import ConfigError, DeniedError, WireError
from warren.fabric.core.messages import LENGTH
from warren.fabric.core.messages.presence import ALPN, CHALLENGE, LABEL, PRESENT, SEEN

log = structlog.get_logger()

UNPROVED = 256
"""TCP connections that have proved nothing, from the moment they are accepted; each may stay so for ten seconds. When
there are more, the oldest goes: who means well is through within two round trips."""
UNPROVED_SOURCE = 64
"""Of these, from one /24 or /56: connectors of one site that come back after the edge's end, all at once."""
PRESENT_MAX = 10_000
"""Connections that have: as many as the switch has attachments."""
READ_LIMIT = 64 << 10
"""Bytes read of one connection, at most, before somebody takes them (twice that, as streams are)."""
PAUSE = 0.1
"""Seconds without accepting when the process has no descriptor left."""


class Presences:
    """The connections of connector processes. `doubt(key)`: the process with this key may be gone."""

    def __init__(self, doorkeeper: Doorkeeper, doubt: Callable[[bytes], None]) -> None:
        self.counters: Counter[str] = Counter()
        self._doorkeeper = doorkeeper
        self._doubt = doubt
        self.unproved: dict[asyncio.Task[None], bytes | str] = {}
        """Oldest first; from which source."""
        self._there: Counter[bytes] = Counter()
        self._open: set[asyncio.Task[None]] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._there)

    def accept(self, sock: socket.socket, host: str, context: ssl.SSLContext) -> None:
        """One connection, served in the background from its handshake to its end. `host`: where it came from."""
        source = source_prefix(host)
        of_source = sum(one == source for one in self.unproved.values())
        if of_source >= UNPROVED_SOURCE or self._there.total() >= PRESENT_MAX:
            self.counters["too_many"] += 1
            sock.close()
            return
        if len(self.unproved) >= UNPROVED:
            self.counters["too_many"] += 1
            oldest = next(iter(self.unproved))
            del self.unproved[oldest]
            oldest.cancel()
        task = asyncio.create_task(self._serve(sock, context))
        self.unproved[task] = source
        self._open.add(task)
        task.add_done_callback(lambda task: self._over(task, sock))

    def _over(self, task: asyncio.Task[None], sock: socket.socket) -> None:
        sock.close()
        self._open.discard(task)
        self.unproved.pop(task, None)

    async def _serve(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        me = asyncio.current_task()
        assert me is not None
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(HANDSHAKE_TIME):
                reader, writer = await _secured(sock, context)
                key = await self._prove(reader, writer)
            del self.unproved[me]
            await self._watch(key, reader)
        except (OSError, WireError, DeniedError, asyncio.IncompleteReadError) as error:
            self._note(error)
            error.with_traceback(None)  # whose frames know the connection, which keeps the error
        finally:
            if writer is not None:
                writer.transport.abort()

    def _note(self, error: Exception) -> None:
        """An error of the network or of TLS has a number, the kernel's time-out too; our own time-out has none."""
        lost = isinstance(error, OSError) and error.errno is not None
        self.counters["lost" if lost else "refused"] += 1
        log.debug("a TLS connection was lost" if lost else "a TLS connection was refused", detail=str(error))

    async def _prove(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        challenge = os.urandom(CHALLENGE)
        writer.write(challenge)
        key = self._identify(challenge, await _message(reader))
        writer.write(SEEN)
        await writer.drain()
        return key

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
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _secured(sock: socket.socket, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The server's side of a TLS handshake. Raises OSError."""
    keep_alive(sock)
    reader = asyncio.StreamReader(limit=READ_LIMIT)
    protocol = asyncio.StreamReaderProtocol(reader)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol, sock, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIME
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


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
        sock.listen(UNPROVED)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"TCP port {address[1]} can't be had: {error.strerror}; connectors show there that they live"
        ) from None
    sock.setblocking(False)
    accepting = asyncio.create_task(_accept(sock, presences, context))
    try:
        yield
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        sock.close()
        await presences.close()


async def _accept(sock: socket.socket, presences: Presences, context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, address = await loop.sock_accept(sock)
        except OSError as error:  # it is gone again, or there are no descriptors
            log.debug("a TCP connection was not accepted", error=error.strerror)
            await asyncio.sleep(PAUSE)
            continue
        presences.accept(connection, address[0], context)
