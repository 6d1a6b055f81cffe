"""Asks upstreams: UDP on a socket and port of its own per question, TCP when the answer was cut.

Identical questions in flight share one query. A spoofed reply has to guess 16 bits of id, the port that the kernel drew
and the case of the name (0x20), from the address that was asked: sockets are connected.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from warren.dnsfilter.core import upstream as core
from warren.dnsfilter.core.cache import Key
from warren.dnsfilter.core.config import Group, Upstream
from warren.dnsfilter.tlsclient import TlsConnection
from warren.fabric.core import dnswire as wire
from warren.fabric.core.dnsreply import Reply, read_reply, without_ad

IN_FLIGHT_MAX: Final = 1000
"""Different questions at once: each holds a socket, and 1024 descriptors is what many systems give a process."""

log = structlog.get_logger()


class Failure(msgspec.Struct, frozen=True, gc=False):
    """No upstream had an answer: words for the log and the client."""

    text: str
    code: int = wire.EDE_NO_REACHABLE_AUTHORITY
    upstream: str = ""


class Heard(msgspec.Struct, frozen=True, gc=False):
    """What an upstream answered."""

    reply: Reply
    upstream: str


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
            self.answer.set_result(reply)
            return
        self._wrong += 1
        if self._wrong >= core.WRONG_MAX:
            self.answer.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


class Forwarder:
    """The upstreams of all groups, as one client of them."""

    def __init__(
        self,
        groups: dict[str, Group],
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls`: what upstreams over TLS are verified against; the system's authorities by default."""
        self._tls = tls
        self._connections: dict[Upstream, TlsConnection] = {}
        self._groups = groups
        self._clock = clock
        self.health = core.Health()
        self._in_flight: dict[Key, asyncio.Task[Heard | Failure]] = {}

    async def ask(self, key: Key) -> Heard | Failure:
        """Ask the group that the key names. Never raises but when cancelled; whoever waits may be cancelled alone."""
        task = self._in_flight.get(key)
        if task is None:
            if key[3] not in self._groups:
                return Failure("no upstream is configured for that name", wire.EDE_PROHIBITED)
            if len(self._in_flight) >= IN_FLIGHT_MAX:
                return Failure("too many questions in flight", wire.EDE_OTHER)
            task = asyncio.create_task(self._ask_group(key), name="dns question")
            self._in_flight[key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the questions in flight; who waits for them is cancelled."""
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._connections.values():
            await connection.close()

    async def _ask_group(self, key: Key) -> Heard | Failure:
        group, deadline = self._groups[key[3]], self._clock() + core.TOTAL_S
        last: Heard | Failure = Failure("no upstream answered in time")
        width = 2 if group.order == "racing" else 1
        for _ in range(core.ROUNDS):
            order = self.health.order(group, self._clock())
            while order and self._clock() < deadline:
                first, order = order[:width], order[width:]
                heard = await self._race(first, key, deadline)
                if isinstance(heard, Heard) and core.usable(heard.reply):
                    return heard
                if isinstance(heard, Heard) or isinstance(last, Failure):
                    last = heard
            if isinstance(last, Heard):
                return last
        return last

    async def _race(self, upstreams: list[Upstream], key: Key, deadline: float) -> Heard | Failure:
        """The first usable answer of those; else the last that came."""
        if len(upstreams) == 1:
            return await self._try(upstreams[0], key, deadline)
        tasks = [asyncio.create_task(self._try(upstream, key, deadline)) for upstream in upstreams]
        last: Heard | Failure = Failure("no upstream answered in time")
        try:
            for next_done in asyncio.as_completed(tasks):
                last = await next_done
                if isinstance(last, Heard) and core.usable(last.reply):
                    return last
            return last
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, upstream: Upstream, key: Key, deadline: float) -> Heard | Failure:
        state = self.health.of(upstream)
        name, kind, flags, group = key
        raw = core.mixed_case(name, secrets.randbits(wire.NAME_MAX)) if state.keeps_case else name
        asking = core.Asking(secrets.randbits(16), raw, kind, bool(flags & 1), bool(flags & wire.CD))
        started = self._clock()
        try:
            async with asyncio.timeout(min(core.TRY_S, deadline - started)):
                reply = await (self._over_tls if upstream.tls_name else self._over_udp)(upstream, asking)
            if not upstream.tls_name and (reply is None or reply.truncated or reply.raw != raw):
                async with asyncio.timeout(min(core.TRY_S, deadline - self._clock())):
                    reply = await self._over_tcp(upstream, asking)
        except (TimeoutError, OSError, EOFError) as error:  # ssl.SSLError is an OSError
            self.health.failed(upstream, self._clock())
            text = "did not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            return Failure(f"{upstream.text}: {text}", wire.EDE_NETWORK_ERROR, upstream.text)
        if reply is None:
            self.health.failed(upstream, self._clock())
            return Failure(f"{upstream.text}: an answer to another question", wire.EDE_NETWORK_ERROR, upstream.text)
        if reply.raw != raw and state.keeps_case:
            log.info("upstream does not keep the case of names", upstream=upstream.text)
            state.keeps_case = False  # over TCP nobody can guess: it is the upstream that changes it
        self.health.answered(upstream, self._clock() - started)
        if reply.authentic and not self._groups[group].trust_ad:
            reply = without_ad(reply)
        return Heard(reply, upstream.text)

    async def _over_tls(self, upstream: Upstream, asking: core.Asking) -> Reply | None:
        connection = self._connections.get(upstream)
        if connection is None:
            connection = self._connections[upstream] = TlsConnection(upstream, self._tls)
        return await connection.ask(asking)

    async def _over_udp(self, upstream: Upstream, asking: core.Asking) -> Reply | None:
        loop = asyncio.get_running_loop()
        transport, exchange = await loop.create_datagram_endpoint(
            lambda: _Exchange(asking), remote_addr=(upstream.host, upstream.port)
        )
        try:
            transport.sendto(asking.message())
            return await exchange.answer
        finally:
            transport.close()

    async def _over_tcp(self, upstream: Upstream, asking: core.Asking) -> Reply | None:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        try:
            message = asking.message()
            writer.write(len(message).to_bytes(2, "big") + message)
            size = int.from_bytes(await reader.readexactly(2), "big")
            reply = read_reply(await reader.readexactly(size))
        finally:
            writer.close()
        return reply if reply is not None and core.matches(asking, reply) else None
