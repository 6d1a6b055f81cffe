"""A DNS query's journey: virtual resolver address → ours or not → judge → answer, or a route → the private network.

1. The edges' own names and the domains of `dns.local` go to the resolvers that were there before, and nowhere else.
2. A name in none of the routed zones goes there too (`dns.scope: routed`), or to the judge (`everything`).
3. The judge is asked on a stream of its own (fabric/core/session.py). While none can be asked, a name of a route waits
   for one, and so does one of a private zone; another one goes to the resolvers of before, where that is wanted.
4. It answers with a DNS message, which goes back as it is; or says "hostname route", or "resolver route".
5. Then the private network is asked (agent/dns_private.py).
6. Names of addresses: of synthetic ones we know them; of an address that is captured, the connector is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import structlog

from warren.agent.capture.capture import Capture
from warren.agent.capture.headers import FlowKey
from warren.agent.dns_before import ResolversBefore
from warren.agent.dns_private import Judge, Private, PrivateNames, Synthetic, Transport
from warren.fabric.core import dnsrecords, dnswire
from warren.fabric.core.dnsprivate import is_private
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.session import Answer, HostRoute
from warren.fabric.core.reasons import Reason

log = structlog.get_logger()

UNDER_WAY = 512
"""Queries at once; a browser with many tabs asks for some dozens."""
CONNECTIONS = 64
"""TCP connections to the virtual resolver."""
IDLE = 10.0
"""Seconds that such a connection may be idle."""

PATIENCE = 9.0
"""Seconds that a query waits for an edge: a little less than the two tries of a stub resolver, which would take a
failure for the last word."""
LOOK_AGAIN = 1.0
"""Seconds after which an edge is asked again that did not say it is back."""

SOON = 3.0
"""Seconds after which the judge is asked again, or the resolvers of before: its upstreams take as long."""
PLACES = 60
"""Queries at the judge at once, a little below what a session allows; more wait for their turn."""
AT_ONCE = 1.0
"""Seconds within which a judge that is there answers what it knows by itself."""
SILENT = 5.0
"""Seconds for which one that does not is not asked, unless it comes back."""
LOCALHOST = dnswire.name_wire("localhost")

DISCOVERY = dnswire.name_wire("resolver.arpa")
"""Asks this resolver for its encrypted self (RFC 9462): there is none, and another one's would lead past us."""

_WITH_EDGE = (Reason.TUNNEL_DOWN, Reason.RESOLVER_FAILED)


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is asked about what (agent/config.py)."""

    everything: bool = False
    fallback: bool = True
    local: tuple[str, ...] = ()
    """Domains: they and all below."""
    edges: tuple[str, ...] = ()
    """Host names of the edges."""


def is_name(text: str) -> bool:
    """Whether it can be asked for: no address, and a name at all."""
    try:
        ip_address(text)
    except ValueError:
        try:
            return bool(dnswire.name_wire(text))
        except ValueError:
            return False
    return False


class DnsFront:
    """Answers for the virtual resolver address."""

    def __init__(
        self,
        capture: Capture,
        judge: Judge,
        private: Private,
        names: Synthetic,
        before: ResolversBefore,
        choice: Choice | None = None,
    ) -> None:
        self._choice = choice = choice or Choice()
        self._local = tuple(map(dnswire.name_wire, choice.local))
        self._edges = frozenset(map(dnswire.name_wire, choice.edges))
        self._back = asyncio.Event()
        self._places = asyncio.Semaphore(PLACES)
        self._silent_until = 0.0
        self._heard = float("-inf")
        self._capture = capture
        self._judge = judge
        self._names = PrivateNames(judge, private, names, self._ours)
        self._before = before
        self._zones: tuple[tuple[bytes, bool], ...] = ()
        self._captured: tuple[IPv4Network | IPv6Network, ...] = ()
        self._left: tuple[IPv4Network | IPv6Network, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self.dropped = 0

    def configure(
        self,
        zones: tuple[str, ...],
        upstreams: tuple[str, ...],
        captured: Iterable[IPv4Network | IPv6Network] = (),
        left: Iterable[IPv4Network | IPv6Network] = (),
    ) -> None:
        """`zones`: hostnames that the judge is asked about, wildcards as `*.corp.internal`; `upstreams`: addresses of
        the resolvers of before; `captured`: networks whose addresses have their names from their connectors, but for
        `left`, parts of them that are not captured."""
        wire = [(dnswire.name_wire(zone.removeprefix("*.")), zone.startswith("*.")) for zone in zones]
        self._zones = tuple(wire)
        self._before.addresses = upstreams
        self._captured, self._left = tuple(captured), tuple(left)

    def judge_is_back(self) -> None:
        """An edge can be asked: whoever waits for one asks again."""
        self._silent_until = 0.0
        self._back.set()

    # ---- from the capture ----

    def datagram(self, key: FlowKey, payload: bytes) -> None:
        self._spawn(self._udp(key, payload))

    def accepted(self, key: FlowKey, sock: socket.socket) -> None:
        """A TCP connection to the virtual resolver."""
        if self._connections >= CONNECTIONS:
            sock.close()
            self._capture.forget(key)
            return
        self._connections += 1
        self._spawn(self._tcp(key, sock), always=True)

    def _spawn(self, work: Coroutine[Any, Any, None], *, always: bool = False) -> None:
        if len(self._tasks) >= UNDER_WAY and not always:
            work.close()
            self.dropped += 1
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _udp(self, key: FlowKey, payload: bytes) -> None:
        answer = await self.answer(payload, "udp")
        if answer:
            self._capture.send_datagram(key, answer)

    async def _tcp(self, key: FlowKey, sock: socket.socket) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=sock)
            while True:
                async with asyncio.timeout(IDLE):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    message = await reader.readexactly(length)
                answer = await self.answer(message, "tcp")
                if not answer:
                    break
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            self._connections -= 1
            if writer is not None:
                writer.close()
            else:
                sock.close()
            self._capture.forget(key)

    # ---- the journey ----

    async def answer(self, message: bytes, transport: Transport) -> bytes:
        """The answer to a query; b"" where nothing should be said."""
        question = dnswire.read_question(message)
        if isinstance(question, dnswire.Unreadable):
            return question.answer
        try:
            packed = dnsrecords.reverse_address(question.name) if question.type == dnswire.PTR else None
            if packed is not None and self._names.is_synthetic(packed):
                return self._names.pointer(question, packed)
            if self._is_local(question.name):
                return await self._before.ask(message, transport)
            if packed is not None and self._is_captured(packed) and not self._ours(question.name):
                return await self._names.pointer_of_captured(question, str(ip_address(packed)), transport)
            if dnswire.is_under(question.name, DISCOVERY):
                return dnswire.answer(question, authoritative=True)
            if not self._ours(question.name):
                return await self._not_routed(message, question, transport)
            return await self._routed(message, question, transport)
        except DeniedError as error:
            return _failure(question, error.reason, error.detail, transport)

    async def _not_routed(self, message: bytes, question: dnswire.Question, transport: Transport) -> bytes:
        """A name that no route is about."""
        if not self._choice.everything:
            return await self._before.ask(message, transport)
        if not self._choice.fallback or is_private(question.name):
            return await self._routed(message, question, transport)
        loop = asyncio.get_running_loop()
        if loop.time() < self._silent_until:
            return await self._before.ask(message, transport)
        try:
            async with asyncio.timeout(SOON):
                said = await self._judge_says(message, transport)
        except TimeoutError:
            away = not await self._is_there()
        except DeniedError as error:
            if error.reason not in (Reason.JUDGE_AWAY, Reason.LIMIT):  # questions that nobody answered fill a limit
                raise
            away = error.reason is Reason.JUDGE_AWAY or not await self._is_there()
        else:
            return await self._said(said, question, transport)
        if not away:  # its upstreams are slow: no reason to go past the filter
            return await self._routed(message, question, transport)
        self._silent_until = loop.time() + SILENT
        return await self._before.ask(message, transport)

    async def _judge_says(self, message: bytes, transport: Transport) -> Answer | HostRoute:
        """Raises DeniedError."""
        async with self._places:
            said = await self._judge.query(message, transport)
        self._heard = asyncio.get_running_loop().time()
        return said

    async def _is_there(self) -> bool:
        """Whether the judge answers at all: what it knows by itself."""
        if asyncio.get_running_loop().time() - self._heard < AT_ONCE:
            return True
        try:
            async with asyncio.timeout(AT_ONCE):
                await self._judge_says(dnswire.build_query(0, LOCALHOST, dnswire.A), "udp")
        except (TimeoutError, DeniedError):
            return False
        return True

    async def _routed(self, message: bytes, question: dnswire.Question, transport: Transport) -> bytes:
        """A name that only the judge may be asked about: when none is there, it waits for one. Raises DeniedError."""
        loop = asyncio.get_running_loop()
        until, waited = loop.time() + PATIENCE, False
        while True:
            self._back.clear()
            said = None
            try:
                async with asyncio.timeout_at(min(until, loop.time() + SOON)):
                    said = await self._judge_says(message, transport)
                return await self._said(said, question, transport)
            except TimeoutError:
                if loop.time() >= until:
                    raise DeniedError(Reason.JUDGE_AWAY, "no answer") from None
                waited = True
                continue  # a new question has the edge looked at anew; questions alike share their way behind it
            except DeniedError as error:
                again = error.reason is Reason.JUDGE_AWAY or (said is None and error.reason is Reason.LIMIT)
                again = again or (waited and error.reason in _WITH_EDGE)  # circuits come back a moment after the edge
                waited = True
                if not again or loop.time() >= until:
                    raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(until, loop.time() + LOOK_AGAIN)):
                    await self._back.wait()

    async def _said(self, said: Answer | HostRoute, question: dnswire.Question, transport: Transport) -> bytes:
        """What becomes of the judge's word."""
        if isinstance(said, Answer):
            return said.message
        return await self._names.answer(question, said, transport)

    def _ours(self, name: bytes) -> bool:
        """Whether it lies in a routed zone."""
        return any(_is_in(name, zone, wildcard) for zone, wildcard in self._zones)

    def _is_local(self, name: bytes) -> bool:
        """Whether only the resolvers of before may be asked. A longer zone of a route goes before a local domain."""
        if name in self._edges:
            return True
        longest = max((len(domain) for domain in self._local if dnswire.is_under(name, domain)), default=0)
        return longest > 0 and not any(
            len(zone) > longest and _is_in(name, zone, wildcard) for zone, wildcard in self._zones
        )

    def _is_captured(self, packed: bytes) -> bool:
        address = ip_address(packed)
        return any(address in network for network in self._captured) and not any(
            address in network for network in self._left
        )

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _is_in(name: bytes, zone: bytes, wildcard: bool) -> bool:
    """A wildcard stands for what is below its zone only."""
    return dnswire.is_under(name, zone) and (name == zone) != wildcard


def _failure(question: dnswire.Question, reason: Reason, detail: str, transport: Transport) -> bytes:
    """NXDOMAIN for a name that is not there; for everything else SERVFAIL with the reason in words (RFC 8914)."""
    rcode = dnswire.NXDOMAIN if reason is Reason.NO_SUCH_NAME else dnswire.SERVFAIL
    extended = None
    if rcode == dnswire.SERVFAIL:
        extended = dnswire.Extended(dnswire.EDE_OTHER, f"warren: {reason.text}{': ' + detail if detail else ''}")
    return dnswire.answer(question, rcode, extended=extended, limit=dnswire.limit_for(question, transport))
