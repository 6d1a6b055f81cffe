"""Listens: UDP, TCP, TLS and HTTPS in front of one resolver."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import ssl
from collections.abc import Callable
from typing import Final

from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.core.verdict import Kind
from warren.dnsfilter.front import TRANSPORTS, Front
from warren.dnsfilter.https import HttpsProtocol
from warren.dnsfilter.querylog import QueryLog
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.settings import LimitSettings
from warren.dnsfilter.streams import Connections, StreamProtocol
from warren.dnsfilter.udp import UdpListener
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.metrics import Family, counted, counter, gauge

HANDSHAKE_S: Final = 10.0


class Server:
    """One resolver behind any number of sockets."""

    def __init__(
        self, resolver: Resolver, clients: ClientBook, limit: LimitSettings, query_log: QueryLog | None = None
    ) -> None:
        self._front = Front(resolver, clients, limit, query_log)
        self._udp: list[UdpListener] = []
        self._servers: list[tuple[asyncio.Server, Connections]] = []

    async def listen(self, address: str) -> int:
        """UDP and TCP on `ADDRESS:PORT`; the port (of use if 0 was asked for)."""
        host, port = split_address(address)
        try:
            udp = UdpListener(self._front, host, port)
        except OSError as error:
            raise _cannot_listen(address, error) from None
        self._udp.append(udp)
        await self._listen(address, udp.port, lambda known: StreamProtocol(self._front, known, "tcp"))
        udp.start()
        return udp.port

    async def listen_tls(self, address: str, context: ssl.SSLContext) -> int:
        """DNS over TLS on `ADDRESS:PORT`."""
        port = split_address(address)[1]
        return await self._listen(address, port, lambda known: StreamProtocol(self._front, known, "tls"), context)

    async def listen_https(self, address: str, context: ssl.SSLContext) -> int:
        """DNS over HTTPS on `ADDRESS:PORT`."""
        port = split_address(address)[1]
        return await self._listen(address, port, lambda known: HttpsProtocol(self._front, known), context)

    async def close(self) -> None:
        """Stop listening, end what is in work."""
        for server, connections in self._servers:
            server.close()
            connections.close()
        for udp in self._udp:
            await udp.close()

    def families(self) -> list[Family]:
        """Its metrics."""
        front, cache = self._front, self._front.resolver.cache
        return [
            counted(
                "warren_dns_queries_total",
                "Queries by their end.",
                "verdict",
                {kind.value: front.verdicts[kind] for kind in Kind},
            ),
            counted(
                "warren_dns_received_total",
                "Queries by transport.",
                "transport",
                {name: front.queries[name] for name in TRANSPORTS},
            ),
            counter("warren_dns_limited_total", "Queries over their client's limit.", front.limiter.refused),
            counter("warren_dns_unsent_total", "Answers that a socket did not take.", sum(u.unsent for u in self._udp)),
            gauge("warren_dns_connections", "Over TCP, TLS and HTTPS.", sum(len(known) for _, known in self._servers)),
            gauge("warren_dns_waiting", "Queries that wait for upstreams.", front.waiting),
            gauge("warren_dns_cache_bytes", "Memory of the cache.", cache.bytes),
            gauge("warren_dns_cache_entries", "Answers in the cache.", len(cache)),
            counter("warren_dns_cache_evicted_total", "Answers that made room for others.", cache.evicted),
            *front.resolver.forwarder.families(),
        ]

    async def _listen(
        self,
        address: str,
        port: int,
        make: Callable[[Connections], asyncio.Protocol],
        context: ssl.SSLContext | None = None,
    ) -> int:
        host, known = split_address(address)[0], Connections()
        timeout = HANDSHAKE_S if context is not None else None
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: make(known), host, port, ssl=context, ssl_handshake_timeout=timeout
            )
        except OSError as error:
            raise _cannot_listen(address, error) from None
        self._servers.append((server, known))
        return int(server.sockets[0].getsockname()[1])


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
