"""Opens what the gate lets through, for one peer connection: gate → resolve → dial → pump."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import structlog

from warren.connector import resolve
from warren.connector.datagrams import DatagramFlow, Drops
from warren.connector.dial import dial
from warren.connector.gate import Gate
from warren.connector.icmp import EchoFlow
from warren.connector.nameservers import Nameservers
from warren.connector.revocations import Standing
from warren.connector.udp import UdpFlow
from warren.fabric.aio.elapsed import elapsed
from warren.fabric.aio.pump import Pump
from warren.fabric.core import dnswire
from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.peer import (
    DatagramArrived,
    FlowAsked,
    FlowCancelled,
    FlowReadable,
    FlowWritable,
    PeerClosed,
    PeerEvent,
    ResolveAsked,
)
from warren.fabric.core.reasons import Reason

log = structlog.get_logger()

DIALS = 1024
"""Dials under way on one peer connection: more than its streams, so that only a fault reaches it."""

RESTS = 30.0
"""Seconds without a datagram after which a flow counts as ended while the connector drains: as most NATs have it."""


class Counts:
    """What the peer connections of a connector share: what was opened and refused, for health and metrics."""

    def __init__(self) -> None:
        self.open = 0
        self.opened = 0
        self.changed = asyncio.Event()
        """Set when a flow has ended."""
        self.refused: dict[Reason, int] = {}
        self.dropped: dict[str, Drops] = {"udp": Drops(), "icmp": Drops()}
        """Datagrams that were not passed on, by protocol and why."""
        self.nameservers = Nameservers()
        """Asked by all peer connections, and bounded for all of them together."""

    def refuse(self, reason: Reason) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


class Flows:
    """The flows of one peer connection. `flush`: drain and transmit, after something was done to the peer. `clock`:
    what idle times are told by, in seconds."""

    def __init__(
        self,
        peer: ConnectorPeer,
        gate: Gate,
        counts: Counts,
        flush: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._peer = peer
        self._gate = gate
        self._counts = counts
        self._flush = flush
        self._clock = clock
        self._dials: dict[Flow, asyncio.Task[None]] = {}
        self._standing: dict[Flow, Standing] = {}
        self._questions: set[asyncio.Task[None]] = set()
        self._draining = False

    def handle(self, event: PeerEvent) -> None:
        """One event of the peer connection; the caller drains and transmits after all of them."""
        match event:
            case DatagramArrived(flow, payload) if isinstance(flow.owner, DatagramFlow):
                flow.owner.send(payload)
            case FlowReadable(flow) if isinstance(flow.owner, Pump | DatagramFlow):
                flow.owner.handle_readable()
            case FlowWritable(flow) if isinstance(flow.owner, Pump):
                flow.owner.handle_writable()
            case FlowAsked(flow, message):
                self._asked(flow, message)
            case FlowCancelled(flow):
                self._cancel(flow)
            case ResolveAsked():
                self._question(event)
            case PeerClosed():
                self.close()

    def drain(self) -> None:
        """No new flows. Nobody says that a flow of datagrams is over: those that rest count as ended sooner."""
        self._draining = True
        for flow in list(self._standing):
            if isinstance(flow.owner, DatagramFlow):
                flow.owner.hurry(RESTS)

    def close(self) -> None:
        """The peer connection is over: dials end here, pumps by what they read from their flows."""
        for flow in list(self._dials):
            self._cancel(flow)
        for task in self._questions:
            task.cancel()

    # ---- opening ----

    def _asked(self, flow: Flow, message: Open) -> None:
        try:
            if self._draining:
                raise DeniedError(Reason.DRAINING)
            if (message.protocol != "tcp") != (self._peer.datagram_room() > 0):
                raise DeniedError(Reason.UNSUPPORTED, message.protocol)
            if len(self._dials) >= DIALS:
                raise DeniedError(Reason.LIMIT, "dials")
            grant = self._gate.check(message, self._peer.key, elapsed())
        except DeniedError as error:
            self._refuse(flow, error)
            return
        self._standing[flow] = self._gate.revocations.enter(grant, lambda: self._revoked(flow))
        task = asyncio.create_task(self._open(flow, message))
        self._dials[flow] = task
        task.add_done_callback(lambda _: self._dials.pop(flow, None))

    async def _open(self, flow: Flow, message: Open) -> None:
        try:
            candidates = await self._candidates(message)
            if message.protocol != "tcp":
                self._open_datagrams(flow, candidates[0], message)
                return
            sock = await dial(candidates, message.port)
        except DeniedError as error:
            self._refuse(flow, error)
            self._flush()
            return
        self._opened(flow, sock)

    async def _candidates(self, message: Open) -> list[str]:
        """Addresses to dial, each of them below the ceiling."""
        if message.address:
            self._gate.check_address(message.address, message.port)
            return [message.address]
        found = await resolve.addresses(message.host)
        allowed, refusal = list[str](), DeniedError(Reason.NO_SUCH_NAME, message.host)
        for address in found:
            try:
                self._gate.check_address(address, message.port)
                allowed.append(address)
            except DeniedError as error:
                refusal = error
        if not allowed:
            raise refusal
        return allowed

    def _opened(self, flow: Flow, sock: socket.socket) -> None:
        if self._peer.closed or flow.id not in self._peer.flows:
            sock.close()
            return
        pump = Pump(sock, flow, self._flush, self._done)
        flow.owner = pump
        self._counts.open += 1
        self._counts.opened += 1
        self._peer.opened(flow, str(sock.getpeername()[0]))
        pump.start()
        self._flush()

    def _open_datagrams(self, flow: Flow, address: str, message: Open) -> None:
        """UDP and ICMP have nobody to wait for. Raises DeniedError."""
        if self._peer.closed or flow.id not in self._peer.flows:
            return
        shared = self._flush, self._done, self._counts.dropped[message.protocol], self._clock
        if message.protocol == "udp":
            flow.owner = UdpFlow(self._peer, flow, address, message.port, *shared)
        else:
            flow.owner = EchoFlow(self._peer, flow, address, *shared)
        if self._draining:
            flow.owner.hurry(RESTS)
        self._counts.open += 1
        self._counts.opened += 1
        self._peer.opened(flow, address)
        self._flush()

    def _done(self, flow: Flow) -> None:
        self._leave(flow)
        self._counts.open -= 1
        self._counts.changed.set()
        flow.owner = None
        self._peer.settled(flow)

    def _revoked(self, flow: Flow) -> None:
        """What it stands on was taken back: it ends, or its opening is refused."""
        if flow in self._dials:
            self._cancel(flow)
            self._refuse(flow, DeniedError(Reason.STALE_GRANT, "taken back while it was opening"))
        elif isinstance(flow.owner, Pump):
            flow.owner.abandon()
        elif isinstance(flow.owner, DatagramFlow):
            flow.owner.close()
        self._flush()

    def _leave(self, flow: Flow) -> None:
        standing = self._standing.pop(flow, None)
        if standing is not None:
            self._gate.revocations.leave(standing)

    def _refuse(self, flow: Flow, error: DeniedError) -> None:
        self._leave(flow)
        log.debug("flow refused", reason=error.reason.word, detail=error.detail)
        self._counts.refuse(error.reason)
        self._peer.refuse(flow, error.reason, error.detail)

    def _cancel(self, flow: Flow) -> None:
        self._leave(flow)
        task = self._dials.pop(flow, None)
        if task is not None:
            task.cancel()

    # ---- names ----

    def _question(self, asked: ResolveAsked) -> None:
        if len(self._questions) >= DIALS:
            self._peer.resolved(asked.request, b"", Reason.LIMIT)
            return
        task = asyncio.create_task(self._resolve(asked))
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    async def _resolve(self, asked: ResolveAsked) -> None:
        try:
            self._peer.resolved(asked.request, await self._answer(asked))
        except DeniedError as error:
            self._peer.resolved(asked.request, b"", error.reason)
        self._flush()

    async def _answer(self, asked: ResolveAsked) -> bytes:
        question = dnswire.read_question(asked.message)
        if not isinstance(question, dnswire.Question):
            raise DeniedError(Reason.UNSUPPORTED, "a question that can't be read")
        grant = self._gate.check_question(asked.grant, self._peer.key, question, elapsed())
        if grant.protocol == "udp" and grant.address:
            return await self._counts.nameservers.ask(question, (grant.address, grant.low))
        return await resolve.answer(question, self._counts.nameservers)
