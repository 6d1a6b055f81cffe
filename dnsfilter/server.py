"""Listens: UDP, TCP (RFC 7766) and TLS (RFC 7858) in front of one resolver."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.core.limit import Limiter
from warren.dnsfilter.core.verdict import Asked, Client, Kind, Resolved
from warren.dnsfilter.querylog import QueryLog
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.settings import LimitSettings
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError

BATCH: Final = 64
"""Datagrams taken from a socket before anything else has its turn."""
FORWARDED_MAX: Final = 4000
"""Queries that wait for upstreams at once, 4 KiB each; more are answered with SERVFAIL."""
CONNECTIONS_MAX: Final = 512
PIPELINED_MAX: Final = 64
"""Queries in work on one connection (RFC 7766, section 6.2.1.1)."""
IDLE_S: Final = 10.0
"""A connection without a query is closed (RFC 7766, section 6.2.3)."""
PADDED_TO: Final = 468
"""Length of an answer over TLS, or a multiple of it, if the query was padded (RFC 8467, section 4.2)."""
_RECEIVE_BUFFER: Final = 4 << 20

log = structlog.get_logger()


class Server:
    """One resolver behind any number of sockets."""

    def __init__(
        self, resolver: Resolver, clients: ClientBook, limit: LimitSettings, query_log: QueryLog | None = None
    ) -> None:
        self._resolver = resolver
        self._clients = clients
        self._limiter = Limiter(limit.per_second, limit.burst)
        self._query_log = query_log
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self.verdicts: Counter[Kind] = Counter()
        self.unsent = 0
        """Answers that a full socket did not take."""

    async def listen(self, address: str) -> int:
        """UDP and TCP on `ADDRESS:PORT`; the port (of use if 0 was asked for)."""
        host, port = split_address(address)
        try:
            udp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            self._sockets.append(udp)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            udp.setblocking(False)
            udp.bind((host, port))
            port = udp.getsockname()[1]
            self._servers.append(await asyncio.start_server(self._connected, host, port))
        except OSError as error:
            raise _cannot_listen(address, error) from None
        asyncio.get_running_loop().add_reader(udp, self._readable, udp)
        return int(port)

    async def listen_tls(self, address: str, context: ssl.SSLContext) -> int:
        """DNS over TLS on `ADDRESS:PORT`."""
        host, port = split_address(address)
        try:
            server = await asyncio.start_server(self._connected, host, port, ssl=context, ssl_handshake_timeout=IDLE_S)
        except OSError as error:
            raise _cannot_listen(address, error) from None
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, end what is in work."""
        loop = asyncio.get_running_loop()
        for udp in self._sockets:
            loop.remove_reader(udp)
            udp.close()
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def metrics(self) -> str:
        """Counters in Prometheus' text form."""
        lines = ["# TYPE warren_dns_queries_total counter"]
        lines += [f'warren_dns_queries_total{{verdict="{kind.value}"}} {self.verdicts[kind]}' for kind in Kind]
        cache = self._resolver.cache
        for name, value in (
            ("warren_dns_limited_total", self._limiter.refused),
            ("warren_dns_unsent_total", self.unsent),
            ("warren_dns_cache_bytes", cache.bytes),
            ("warren_dns_cache_entries", len(cache)),
            ("warren_dns_cache_evicted_total", cache.evicted),
        ):
            lines += [f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}", f"{name} {value}"]
        return "\n".join(lines) + "\n"

    # ------------------------------------------------------------------------------------------------------------ UDP

    def _readable(self, udp: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data, source = udp.recvfrom(wire.QUERY_MAX + 1)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about an earlier answer
                continue
            self._datagram(udp, data, source)

    def _datagram(self, udp: socket.socket, data: bytes, source: tuple[str, int]) -> None:
        started = time.monotonic()
        if not self._limiter.allows(source[0], started):
            return
        client = self._clients.of(source[0])
        decided = self._resolver.decide(data, client)
        if isinstance(decided, Resolved):
            self._answer(udp, source, decided, client, started)
        elif len(self._tasks) < FORWARDED_MAX:
            self._spawn(self._forward(udp, source, decided, started))
        else:
            self._send(udp, wire.refusal(data), source)

    async def _forward(self, udp: socket.socket, source: tuple[str, int], asked: Asked, started: float) -> None:
        resolved = await self._resolver.forward(asked)
        self._answer(udp, source, resolved, asked.client, started)

    def _answer(
        self, udp: socket.socket, source: tuple[str, int], resolved: Resolved, client: Client, started: float
    ) -> None:
        if resolved.message:
            self._send(udp, resolved.message, source)
        self._note(resolved, client, started)

    def _send(self, udp: socket.socket, message: bytes, source: tuple[str, int]) -> None:
        try:
            udp.sendto(message, source)
        except OSError:
            self.unsent += 1

    def _note(self, resolved: Resolved, client: Client, started: float) -> None:
        self.verdicts[resolved.verdict.kind] += 1
        if self._query_log is not None:
            self._query_log.add(resolved, client, time.time(), time.monotonic() - started)

    # ---------------------------------------------------------------------------------------------------- TCP and TLS

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._connections >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # the client's way of leaving
        finally:
            self._connections -= 1
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str(writer.get_extra_info("peername")[0])
        room = asyncio.Semaphore(PIPELINED_MAX)
        async with asyncio.TaskGroup() as queries:
            while True:
                try:
                    async with asyncio.timeout(IDLE_S):
                        size = int.from_bytes(await reader.readexactly(2), "big")
                        data = await reader.readexactly(size)
                except (EOFError, OSError, TimeoutError):
                    return
                await room.acquire()
                queries.create_task(self._one(writer, room, data, address))

    async def _one(self, writer: asyncio.StreamWriter, room: asyncio.Semaphore, data: bytes, address: str) -> None:
        started = time.monotonic()
        client = self._clients.of(address)
        try:
            if not self._limiter.allows(address, started):
                return
            resolved = await self._resolver.resolve(data, client, "tcp")
            message = resolved.message
            if message and not writer.is_closing():
                if resolved.question is not None and resolved.question.padded and writer.get_extra_info("ssl_object"):
                    message = wire.padded(message, PADDED_TO)
                writer.write(len(message).to_bytes(2, "big") + message)
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()
            self._note(resolved, client, started)
        except (OSError, TimeoutError):
            writer.close()
        finally:
            room.release()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="dns query")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def split_address(text: str) -> tuple[str, int]:
    """`ADDRESS:PORT` or `[ADDRESS]:PORT`."""
    host, _, port = text.rpartition(":")
    try:
        number = int(port)
        parsed = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ConfigError(f"{text!r}: give address and port to listen on, as in 127.0.0.1:53 or [::1]:53") from None
    if not 0 <= number < 65536:
        raise ConfigError(f"{text!r}: a port is between 1 and 65535")
    return str(parsed), number


def _cannot_listen(address: str, error: OSError) -> ConfigError:
    advice = {
        errno.EADDRINUSE: "another resolver is there; stop it or listen on another port",
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE; try 5353",
        errno.EADDRNOTAVAIL: "this host does not have that address",
    }.get(error.errno or 0, error.strerror or "the system does not say why")
    return ConfigError(f"can't listen on {address}: {advice}")
