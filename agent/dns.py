"""A DNS query's journey: virtual resolver address → ours or not → judge → answer, or hostname route → name.

1. A name in none of the routed zones goes to the resolvers that were there before (`dns.scope: routed`).
2. Else the judge is asked, on a stream of its own (fabric/core/session.py).
3. It answers with a DNS message, which goes back as it is; or says "hostname route".
4. Then the connector is asked whether the name exists, and for A the app gets a synthetic address (agent/names.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, Literal, Protocol

import structlog

from warren.agent.capture.capture import Capture
from warren.agent.capture.headers import FlowKey
from warren.fabric.core import dnsreply, dnswire
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

Transport = Literal["udp", "tcp"]


class Judge(Protocol):
    """What the node offers (fabric/aio/node.py)."""

    async def query(self, message: bytes, transport: Transport) -> Answer | HostRoute:
        """Raises DeniedError."""

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Granted:
        """Raises DeniedError."""


class Private(Protocol):
    """What the peer connections offer (agent/peers.py)."""

    async def resolve(self, granted: Granted, query: bytes) -> bytes:
        """Raises DeniedError."""


class Synthetic(Protocol):
    """The synthetic addresses (agent/names.py): packed IPv4, or None when the range is full."""

    def address_of(self, vnet: str, name: str) -> bytes | None: ...

    def name_of(self, address: bytes) -> str | None: ...


class DnsFront:
    """Answers for the virtual resolver address."""

    def __init__(self, capture: Capture, judge: Judge, private: Private, names: Synthetic, mark: int) -> None:
        """`mark`: SO_MARK of what goes to the resolvers of before, so that it does not come back to us."""
        self._capture = capture
        self._judge = judge
        self._private = private
        self._names = names
        self._mark = mark
        self._zones: tuple[tuple[bytes, bool], ...] = ()
        self._upstreams: tuple[str, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self.dropped = 0

    def configure(self, zones: tuple[str, ...], upstreams: tuple[str, ...]) -> None:
        """`zones`: hostnames that the judge is asked about, wildcards as `*.corp.internal`; `upstreams`: addresses of
        the resolvers of before."""
        wire = [(dnswire.name_wire(zone.removeprefix("*.")), zone.startswith("*.")) for zone in zones]
        self._zones = tuple(wire)
        self._upstreams = upstreams

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
            if pointer := self._pointer(question):
                return pointer
            if not self._ours(question.name):
                return await self._before(message, question, transport)
            said = await self._judge.query(message, transport)
            if isinstance(said, Answer):
                return said.message
            return await self._host_route(message, question, said, transport)
        except DeniedError as error:
            return _failure(question, error.reason, error.detail, transport)

    def _ours(self, name: bytes) -> bool:
        return any(
            name == zone if not wildcard else name != zone and dnswire.is_under(name, zone)
            for zone, wildcard in self._zones
        )

    def _pointer(self, question: dnswire.Question) -> bytes | None:
        """PTR of a synthetic address: its name."""
        text = question.text.rstrip(".")
        if question.type != dnswire.PTR or not text.endswith(".in-addr.arpa"):
            return None
        try:
            packed = bytes(int(part) for part in reversed(text.removesuffix(".in-addr.arpa").split(".")))
        except ValueError:
            return None
        name = self._names.name_of(packed) if len(packed) == 4 else None
        return dnswire.answer_pointer(question, dnswire.name_wire(name), TTL) if name else None

    async def _host_route(
        self, message: bytes, question: dnswire.Question, route: HostRoute, transport: Transport
    ) -> bytes:
        """The name exists behind a tunnel, or does not: its connector knows. For IPv4 it gets a synthetic address;
        other types have no data (they come with later work), so that nothing leads past it."""
        granted = await self._judge.decide("tcp", 1, host=route.host)
        limit = dnswire.limit_for(question, transport)
        probe = dnswire.build_query(question.id, question.raw, dnswire.A)
        reply = dnsreply.read_reply(await self._private.resolve(granted, probe))
        if reply is None or reply.rcode not in (dnswire.NOERROR, dnswire.NXDOMAIN):
            raise DeniedError(Reason.RESOLVER_FAILED, route.host)
        if reply.rcode == dnswire.NXDOMAIN:
            raise DeniedError(Reason.NO_SUCH_NAME, route.host)
        if question.type != dnswire.A or not reply.addresses:
            return dnswire.answer_addresses(question, [], TTL, limit=limit)
        address = self._names.address_of(route.vnet, route.host)
        if address is None:
            raise DeniedError(Reason.LIMIT, "synthetic addresses; see the agent's status")
        return dnswire.answer_addresses(question, [address], TTL, limit=limit)

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


async def _exchange(loop: asyncio.AbstractEventLoop, sock: socket.socket, message: bytes) -> bytes:
    await loop.sock_sendall(sock, len(message).to_bytes(2, "big") + message)
    buffer = bytearray()
    while len(buffer) < 2 or len(buffer) < 2 + int.from_bytes(buffer[:2], "big"):
        data = await loop.sock_recv(sock, 65_535)
        if not data:
            raise asyncio.IncompleteReadError(bytes(buffer), None)
        buffer += data
    return bytes(buffer[2:])


def _failure(question: dnswire.Question, reason: Reason, detail: str, transport: Transport) -> bytes:
    """NXDOMAIN for a name that is not there; for everything else SERVFAIL with the reason in words (RFC 8914)."""
    rcode = dnswire.NXDOMAIN if reason is Reason.NO_SUCH_NAME else dnswire.SERVFAIL
    extended = None
    if rcode == dnswire.SERVFAIL:
        extended = dnswire.Extended(dnswire.EDE_OTHER, f"warren: {reason.text}{': ' + detail if detail else ''}")
    return dnswire.answer(question, rcode, extended=extended, limit=dnswire.limit_for(question, transport))
