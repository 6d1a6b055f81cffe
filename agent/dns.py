"""A DNS query's journey: virtual resolver address → ours or not → judge → answer, or a route → the private network.

1. The edges' own names and the domains of `dns.local` go to the resolvers that were there before, and nowhere else.
2. A name in none of the routed zones goes there too (`dns.scope: routed`), or to the judge (`everything`).
3. The judge is asked on a stream of its own (fabric/core/session.py). While none can be asked, a name of a route waits
   for one, and so does one of a private zone; another one goes to the resolvers of before, where that is wanted.
4. It answers with a DNS message, which goes back as it is; or says "hostname route", or "resolver route".
5. Hostname route: the connector is asked. If the name has an address, the app gets a synthetic one for A
   (agent/names.py), and one for AAAA if it has an IPv6 address. Other types pass through, without what would lead past
   it (fabric/core/dnsrecords.py).
6. Resolver route: its servers are asked through the connector, and their answer is the answer.
7. Names of addresses: of synthetic ones we know them; of an address that is captured, the connector is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Literal, Protocol

import structlog

from warren.agent.capture.capture import Capture
from warren.agent.capture.headers import FlowKey
from warren.fabric.core import dnsrecords, dnsreply, dnswire
from warren.fabric.core.dnsprivate import is_private
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.session import Answer, Granted, HostRoute
from warren.fabric.core.reasons import Reason

log = structlog.get_logger()

TTL = 30
"""Seconds that a synthetic address is good for in caches."""
UNDER_WAY = 512
"""Queries at once; a browser with many tabs asks for some dozens."""
TRIES, WAIT = 2, 2.0
"""Times that each resolver of before is asked, and seconds for an answer."""
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

Transport = Literal["udp", "tcp"]


class Judge(Protocol):
    """What the node offers (fabric/aio/node.py)."""

    async def query(self, message: bytes, transport: Transport) -> Answer | HostRoute:
        """Raises DeniedError."""

    async def decide(
        self, protocol: str, port: int, *, address: str = "", host: str = "", resolver: str = ""
    ) -> Granted:
        """Raises DeniedError."""


class Private(Protocol):
    """What the peer connections offer (agent/peers.py)."""

    async def resolve(self, granted: Granted, query: bytes) -> bytes:
        """Raises DeniedError."""


class Synthetic(Protocol):
    """The synthetic addresses (agent/names.py): packed, or None when the range is full, or the host has no IPv6."""

    def address_of(self, vnet: str, name: str) -> bytes | None: ...

    def address6_of(self, vnet: str, name: str) -> bytes | None: ...

    def name_of(self, address: bytes) -> str | None: ...

    def is_synthetic(self, address: bytes) -> bool: ...


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
        mark: int,
        choice: Choice | None = None,
    ) -> None:
        """`mark`: SO_MARK of what goes to the resolvers of before, so that it does not come back to us."""
        self._choice = choice = choice or Choice()
        self._local = tuple(map(dnswire.name_wire, choice.local))
        self._edges = frozenset(map(dnswire.name_wire, choice.edges))
        self._back = asyncio.Event()
        self._places = asyncio.Semaphore(PLACES)
        self._silent_until = 0.0
        self._heard = float("-inf")
        self._capture = capture
        self._judge = judge
        self._private = private
        self._names = names
        self._mark = mark
        self._zones: tuple[tuple[bytes, bool], ...] = ()
        self._captured: tuple[IPv4Network | IPv6Network, ...] = ()
        self._left: tuple[IPv4Network | IPv6Network, ...] = ()
        self._upstreams: tuple[str, ...] = ()
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
        self._upstreams = upstreams
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
                return self._pointer(question, packed)
            if self._is_local(question.name):
                return await self._before(message, question, transport)
            if packed is not None and self._is_captured(packed) and not self._ours(question.name):
                return await self._private_pointer(question, str(ip_address(packed)), transport)
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
            return await self._before(message, question, transport)
        if not self._choice.fallback or is_private(question.name):
            return await self._routed(message, question, transport)
        loop = asyncio.get_running_loop()
        if loop.time() < self._silent_until:
            return await self._before(message, question, transport)
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
        return await self._before(message, question, transport)

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
        if said.servers:
            return await self._resolver_route(question, said, transport)
        return await self._host_route(question, said, transport)

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

    def _pointer(self, question: dnswire.Question, packed: bytes) -> bytes:
        """PTR of a synthetic address: its name. One that nobody was given is nobody's: no other resolver is asked."""
        name = self._names.name_of(packed)
        if name is None:
            return dnswire.answer(question, dnswire.NXDOMAIN, authoritative=True)
        return dnswire.answer_pointer(question, dnswire.name_wire(name), TTL)

    def _is_captured(self, packed: bytes) -> bool:
        address = ip_address(packed)
        return any(address in network for network in self._captured) and not any(
            address in network for network in self._left
        )

    async def _private_pointer(self, question: dnswire.Question, address: str, transport: Transport) -> bytes:
        """PTR of an address behind a tunnel: what the private resolver says, whatever name that is."""
        granted = await self._judge.decide("tcp", 1, address=address)
        said = await self._asked(granted, question, question.type)
        found = dnsrecords.near(said, question, lambda name: True)
        return _private(question, said, found, transport)

    async def _host_route(self, question: dnswire.Question, route: HostRoute, transport: Transport) -> bytes:
        """What the private resolver says, but for addresses: those are ours, so that nothing leads past them."""
        granted = await self._judge.decide("tcp", 1, host=route.host)
        if question.type not in (dnswire.A, dnswire.AAAA):
            said = await self._asked(granted, question, question.type)
            return _private(question, said, dnsrecords.near(said, question, self._ours), transport)
        said = await self._asked(granted, question, dnswire.A)
        if said.rcode == dnswire.NXDOMAIN:
            return _private(question, said, dnsrecords.Near((), 0), transport)
        has_address = any(record.type == dnswire.A for record in said.answers)
        has_aaaa = False
        if question.type == dnswire.AAAA or not has_address:
            beside = await self._asked(granted, question, dnswire.AAAA)
            has_aaaa = any(record.type == dnswire.AAAA for record in beside.answers)
        if not has_aaaa and (question.type == dnswire.AAAA or not has_address):
            return _private(question, said, dnsrecords.Near((), 0), transport)
        address = self._names.address_of(route.vnet, route.host)
        if question.type == dnswire.AAAA and address is not None:
            address = self._names.address6_of(route.vnet, route.host)
            if address is None:
                return _private(question, said, dnsrecords.Near((), 0), transport)
        if address is None:
            raise DeniedError(Reason.LIMIT, "synthetic addresses; see the agent's status")
        limit = dnswire.limit_for(question, transport)
        return dnswire.answer_addresses(question, [address], TTL, limit=limit)

    async def _resolver_route(self, question: dnswire.Question, route: HostRoute, transport: Transport) -> bytes:
        """What a server of the zone says, asked end to end; the next one where the first does not."""
        failure = DeniedError(Reason.RESOLVER_FAILED, route.host)
        for server in route.servers:
            host, port = _split(server)
            try:
                granted = await self._judge.decide("udp", port, address=host, resolver=route.route)
                query = dnswire.build_query(question.id, question.raw, question.type)
                reply = dnsreply.read_reply(await self._private.resolve(granted, query))
            except DeniedError as error:
                failure = error
                continue
            if reply is None or (reply.name, reply.type) != (question.name, question.type):
                failure = DeniedError(Reason.RESOLVER_FAILED, "an answer that can't be read")
            elif reply.rcode not in (dnswire.NOERROR, dnswire.NXDOMAIN):
                failure = DeniedError(Reason.RESOLVER_FAILED, f"{server} answers with rcode {reply.rcode}")
            else:
                limit = dnswire.limit_for(question, transport)
                return dnsreply.render(reply.body, reply.ttls, question, limit=limit)
        raise failure

    async def _asked(self, granted: Granted, question: dnswire.Question, kind: int) -> dnsrecords.Sections:
        """The private resolver's answer. Raises DeniedError."""
        query = dnswire.build_query(question.id, question.raw, kind)
        said = dnsrecords.read_sections(await self._private.resolve(granted, query))
        if said is None:
            raise DeniedError(Reason.RESOLVER_FAILED, "an answer that can't be read")
        if said.rcode not in (dnswire.NOERROR, dnswire.NXDOMAIN):
            raise DeniedError(Reason.RESOLVER_FAILED, f"it answers with rcode {said.rcode}")
        return said

    async def _before(self, message: bytes, question: dnswire.Question, transport: Transport) -> bytes:
        """A name that is not ours: the resolvers that were there before, as the app asked."""
        for _ in range(TRIES):
            for upstream in self._upstreams:
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

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _is_in(name: bytes, zone: bytes, wildcard: bool) -> bool:
    """A wildcard stands for what is below its zone only."""
    return dnswire.is_under(name, zone) and (name == zone) != wildcard


def _split(server: str) -> tuple[str, int]:
    """ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT. Raises DeniedError for anything else."""
    host, port = server, "53"
    if server.startswith("[") or server.count(":") == 1:
        host, _, port = server.rpartition(":")
    try:
        return str(ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise DeniedError(Reason.PROTOCOL, "a name server that is no address") from None


async def _exchange(loop: asyncio.AbstractEventLoop, sock: socket.socket, message: bytes) -> bytes:
    await loop.sock_sendall(sock, len(message).to_bytes(2, "big") + message)
    buffer = bytearray()
    while len(buffer) < 2 or len(buffer) < 2 + int.from_bytes(buffer[:2], "big"):
        data = await loop.sock_recv(sock, 65_535)
        if not data:
            raise asyncio.IncompleteReadError(bytes(buffer), None)
        buffer += data
    return bytes(buffer[2:])


def _private(
    question: dnswire.Question, said: dnsrecords.Sections, found: dnsrecords.Near, transport: Transport
) -> bytes:
    """The answer to the app out of what the private resolver said and what is left of it."""
    extended = None
    if found.left_out:
        text = f"warren: {found.left_out} records that lead to names outside the hostname routes were left out"
        extended = dnswire.Extended(dnswire.EDE_FILTERED, text)
    authority = () if found.records or found.left_out else dnsrecords.negative_authority(said)
    limit = dnswire.limit_for(question, transport)
    return dnswire.answer(question, said.rcode, found.records, authority, extended, limit=limit)


def _failure(question: dnswire.Question, reason: Reason, detail: str, transport: Transport) -> bytes:
    """NXDOMAIN for a name that is not there; for everything else SERVFAIL with the reason in words (RFC 8914)."""
    rcode = dnswire.NXDOMAIN if reason is Reason.NO_SUCH_NAME else dnswire.SERVFAIL
    extended = None
    if rcode == dnswire.SERVFAIL:
        extended = dnswire.Extended(dnswire.EDE_OTHER, f"warren: {reason.text}{': ' + detail if detail else ''}")
    return dnswire.answer(question, rcode, extended=extended, limit=dnswire.limit_for(question, transport))
