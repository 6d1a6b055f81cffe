"""Asks the upstreams of a group: in their order or racing, the next when one fails, each in its own way of being asked.

Identical questions in flight share one query. Where libunbound validates, it asks instead (`validator.py`).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import structlog

from warren.dnsfilter.core import upstream as core
from warren.dnsfilter.core.cache import Key
from warren.dnsfilter.core.config import Group, Upstream
from warren.dnsfilter.dnssec import Validation
from warren.dnsfilter.httpsclient import HttpsConnection
from warren.dnsfilter.plainclient import ask_tcp, ask_udp, needs_tcp
from warren.dnsfilter.tlsclient import TlsConnection
from warren.dnsfilter.trust import Trust
from warren.fabric.core import dnswire as wire
from warren.fabric.core.dnsreply import Reply, without_ad
from warren.fabric.daemon.metrics import Family

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


class Forwarder:
    """The upstreams of all groups, as one client of them."""

    def __init__(
        self,
        groups: dict[str, Group],
        clock: Callable[[], float] = time.monotonic,
        trust: Trust | None = None,
        validation: Validation | None = None,
    ) -> None:
        """`trust`: what upstreams over TLS and HTTPS are verified against; the system's authorities by default."""
        self._trust = trust or Trust()
        self._connections: dict[Upstream, TlsConnection | HttpsConnection] = {}
        self._groups = groups
        self._validation = validation or Validation()
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
        self._validation.close()

    def families(self) -> list[Family]:
        """Metrics of the upstreams; they are of the configuration, so their labels are bounded."""
        states = [({"upstream": upstream.text}, state) for upstream, state in self.health.states()]
        return [
            Family(f"warren_dns_upstream_{name}", kind, text, tuple((label, value(state)) for label, state in states))
            for name, kind, text, value in _FAMILIES
        ]

    async def _ask_group(self, key: Key) -> Heard | Failure:
        group, deadline = self._groups[key[3]], self._clock() + core.TOTAL_S
        if self._validation.covers(key[3], checking_disabled=bool(key[2] & wire.CD)):
            return await self._validated(key)
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

    async def _validated(self, key: Key) -> Heard | Failure:
        try:
            async with asyncio.timeout(core.TOTAL_S):
                said = await self._validation.ask(key)
        except TimeoutError:
            return Failure("no upstream answered in time")
        except OSError as error:
            return Failure(f"libunbound: {error}", wire.EDE_NETWORK_ERROR)
        if isinstance(said, str):
            return Failure(said, wire.EDE_BOGUS)
        return Heard(said, "libunbound") if said is not None else Failure("no upstream had an answer")

    async def _try(self, upstream: Upstream, key: Key, deadline: float) -> Heard | Failure:
        state, started = self.health.of(upstream), self._clock()
        asking = self._asking(upstream, state, key)
        believed = self._groups[key[3]].trust_ad
        try:
            async with asyncio.timeout(min(core.TRY_S, deadline - started)):
                reply = await (self._encrypted(upstream, asking) if upstream.tls_name else ask_udp(upstream, asking))
            if not upstream.tls_name and needs_tcp(asking, reply):
                async with asyncio.timeout(min(core.TRY_S, deadline - self._clock())):
                    reply = await ask_tcp(upstream, self._learnt(state, asking, reply))
        except (TimeoutError, OSError, EOFError) as error:  # ssl.SSLError is an OSError
            self.health.failed(upstream, self._clock())
            text = "did not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            return Failure(f"{upstream.text}: {text}", wire.EDE_NETWORK_ERROR, upstream.text)
        if reply is None:
            self.health.failed(upstream, self._clock())
            return Failure(f"{upstream.text}: an answer to another question", wire.EDE_NETWORK_ERROR, upstream.text)
        if reply.raw != asking.raw and state.keeps_case:
            log.info("upstream does not keep the case of names", upstream=upstream.text)
            state.keeps_case = False  # over TCP nobody can guess: it is the upstream that changes it
        self._learnt(state, asking, reply)
        self.health.answered(upstream, self._clock() - started)
        if reply.authentic and not (believed or self._validation.believes(key[3])):
            reply = without_ad(reply)
        return Heard(reply, upstream.text)

    def _asking(self, upstream: Upstream, state: core.State, key: Key) -> core.Asking:
        name, kind, flags, group = key
        raw = core.mixed_case(name, secrets.randbits(wire.NAME_MAX)) if state.keeps_case else name
        if not state.cookie and state.takes_cookies and not upstream.tls_name:
            state.cookie = secrets.token_bytes(core.COOKIE)
        return core.Asking(
            id=secrets.randbits(16),
            raw=raw,
            type=kind,
            dnssec_ok=bool(flags & 1),
            checking_disabled=bool(flags & wire.CD),
            wants_ad=self._groups[group].trust_ad or self._validation.believes(group),
            cookie=state.cookie,
        )

    def _learnt(self, state: core.State, asking: core.Asking, reply: Reply | None) -> core.Asking:
        """The question with the cookie that the upstream has given meanwhile; without one, if it does not take any."""
        if not asking.cookie or reply is None:
            return asking
        if reply.rcode == wire.FORMERR:
            state.takes_cookies, state.cookie = False, b""
        else:
            state.cookie = reply.cookie or asking.cookie[: core.COOKIE]
        return msgspec.structs.replace(asking, cookie=state.cookie)

    async def _encrypted(self, upstream: Upstream, asking: core.Asking) -> Reply | None:
        connection = self._connections.get(upstream)
        if connection is None:
            if upstream.path:
                connection = HttpsConnection(upstream, self._trust.https)
            else:
                connection = TlsConnection(upstream, self._trust.tls)
            self._connections[upstream] = connection
        return await connection.ask(asking)


_FAMILIES: Final[tuple[tuple[str, Literal["counter", "gauge"], str, Callable[[core.State], float]], ...]] = (
    ("answered_total", "counter", "Questions that it answered.", lambda state: state.answered),
    ("failed_total", "counter", "Questions that it did not answer.", lambda state: state.failed),
    ("rtt_seconds", "gauge", "Smoothed time that it takes.", lambda state: round(state.rtt, 6)),
)
