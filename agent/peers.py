"""The peer connections towards connectors: one for each tunnel, another when streams run short.

A flow that was granted waits here until its tunnel's connection is proved; then it is opened on it. Who asks for what a
circuit needs (a switch) is the node's affair; what a tunnel must show before it is believed is decided here: the
network key's word on its CA, and no revision below the highest seen (protocol.md, section 4).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog

from warren.fabric.aio.circuits import CircuitSocket, PeerPath
from warren.fabric.core.agent_peer import AgentPeer
from warren.fabric.core.credit import Budget
from warren.fabric.core.engine import ClientConfig, Engine, Limits
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.messages.attachment import Circuit
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.messages.session import Granted
from warren.fabric.core.peer import (
    DatagramArrived,
    FlowOpened,
    FlowReadable,
    FlowRefused,
    FlowUnreachable,
    FlowWritable,
    PeerClosed,
    PeerEvent,
    PeerReady,
    ResolveAnswered,
)
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates, statements

log = structlog.get_logger()

ALPN = "warren-peer/1"
PEER_LIMITS = Limits(idle_timeout=900.0, keep_alive=20.0, streams=1024, connection_window=256 << 20)
"""Idle time-out not below the hold times (protocol.md, section 3); windows above all that credit allows."""
STREAMS, DATAGRAMS = 0, 1
"""Index of the circuit sockets: TCP flows on the one, UDP and ICMP on the other, nothing shared but the host."""
CONNECTIONS = 16
"""Peer connections of either kind to one tunnel: 1,024 flows each, half of what the flow table holds."""
WAITING = 4096
"""Flows that wait for one tunnel's connection to be proved: as many as the capture holds SYNs."""
HOLD = 60.0
"""Seconds that flows are kept while their connector can't be reached (protocol.md, section 3)."""
RENEW_EVERY = 1.0
RESOLVE_TIME = 5.0
"""Seconds that a private resolver may take, as long as the stub resolver that asks us waits."""


class Switches(Protocol):
    """Where circuits come from (fabric/aio/node.py)."""

    async def ask(
        self, index: int, peer: bytes, permit: bytes, tried: tuple[bytes, ...], boot: bytes = b""
    ) -> tuple[Circuit, CircuitSocket]:
        """A circuit for a peer connection; `boot`: only to that connector process. Raises DeniedError."""


class FlowOwner(Protocol):
    """Who asked for a flow."""

    def opened(self, flow: Flow, address: str) -> None: ...

    def refused(self, reason: Reason, detail: str) -> None: ...

    def readable(self, flow: Flow) -> None: ...

    def writable(self, flow: Flow) -> None: ...

    def datagram(self, payload: bytes) -> None:
        """UDP and ICMP: what the origin sent."""

    def unreachable(self, reason: Reason) -> None:
        """UDP: the origin says that it is not there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A flow to be opened: what the judge granted, where to, for whom."""

    granted: Granted
    message: Open
    owner: FlowOwner


@dataclass(eq=False, slots=True)
class PeerState:
    """One peer connection, from the request for its circuit to its end."""

    tunnel: str
    tunnel_name: str
    id: bytes
    index: int
    """STREAMS or DATAGRAMS."""
    permit: bytes
    """The newest pass for the tunnel."""
    path: PeerPath | None = None
    peer: AgentPeer | None = None
    boot: bytes = b""
    away: float | None = None
    """Since when the connector is said to be gone, by the loop's clock."""
    draining: bool = False
    waiting: list[Callable[[AgentPeer | None, Reason], None]] = field(default_factory=list)
    owners: dict[Flow, FlowOwner] = field(default_factory=dict)

    @property
    def gone(self) -> bool:
        """The connector is said to be gone, and nothing of it was heard since."""
        return self.away is not None and (self.path is None or self.path.heard <= self.away)

    @property
    def usable(self) -> bool:
        """New flows may be opened here."""
        if self.gone or self.draining or (self.peer is not None and self.peer.closed):
            return False
        return len(self.owners) + len(self.waiting) < PEER_LIMITS.streams - 8


class Peers:
    """All peer connections of the agent."""

    def __init__(
        self, engine: Engine, network: bytes, sign: Callable[[bytes, bytes], tuple[bytes, bytes]], switches: Switches
    ) -> None:
        """`network`: DER of its certificate. `sign`: the device key's proof, (challenge, leaf) → (key, signature)."""
        self._engine = engine
        self._network = network
        self._sign = sign
        self._switches = switches
        self._budget = Budget()
        self._states: dict[tuple[str, int], list[PeerState]] = {}
        self.datagrams_ready: Callable[[int], None] = lambda room: None
        """Called with the room for a datagram whenever a connection that carries some is proved."""
        self._revisions: dict[str, int] = {}
        self._questions: dict[int, asyncio.Future[bytes]] = {}
        self._next_question = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    # ---- flows ----

    def open(self, wanted: Wanted) -> Opening:
        """Opens a flow as soon as its tunnel can be reached; the owner hears `opened` or `refused`."""
        opening = Opening(self, wanted)
        try:
            state = self._usable(wanted.granted, STREAMS if wanted.message.protocol == "tcp" else DATAGRAMS)
        except DeniedError as error:
            wanted.owner.refused(error.reason, error.detail)
            return opening
        self._when_ready(state, opening.start)
        return opening

    def _usable(self, granted: Granted, index: int) -> PeerState:
        """A peer connection of the tunnel, made if there is none or all are full. Raises DeniedError."""
        states = self._states.setdefault((granted.tunnel, index), [])
        for state in states:
            if state.usable:
                state.permit = granted.permit
                return state
        if len(states) >= CONNECTIONS:
            raise DeniedError(Reason.LIMIT, "peer connections to one tunnel")
        self._believe(granted)
        state = PeerState(granted.tunnel, granted.tunnel_name, os.urandom(16), index, granted.permit)
        states.append(state)
        self._spawn(self._connect(state, granted))
        return state

    def _believe(self, granted: Granted) -> None:
        """The network key has to have signed the tunnel, and nothing older than what was seen."""
        lowest = self._revisions.get(granted.tunnel, 0)
        said = statements.verify_tunnel(granted.statement, granted.authority, self._network, lowest=lowest)
        if said.tunnel != granted.tunnel:
            raise DeniedError(Reason.WRONG_TUNNEL, granted.tunnel_name)
        self._revisions[granted.tunnel] = said.revision

    def _when_ready(self, state: PeerState, then: Callable[[AgentPeer | None, Reason], None]) -> None:
        if state.peer is not None and state.peer.ready and not state.peer.closed:
            then(state.peer, Reason.UNKNOWN)
        elif len(state.waiting) >= WAITING:
            then(None, Reason.LIMIT)
        else:
            state.waiting.append(then)

    # ---- connections ----

    async def _connect(self, state: PeerState, granted: Granted) -> None:
        leaving = tuple(other.boot for other in self._states[granted.tunnel, state.index] if other.draining)
        try:
            circuit, socket = await self._switches.ask(state.index, state.id, granted.permit, leaving)
        except DeniedError as error:
            self._lost(state, error.reason)
            return
        config = ClientConfig(
            alpn=ALPN,
            server_name=certificates.tunnel_name(granted.tunnel),
            root=certificates.pem(granted.authority),
            limits=replace(PEER_LIMITS, datagrams=state.index == DATAGRAMS),
        )
        now = self._loop.time()
        peer = AgentPeer(self._engine.connect(config, now), now, self._budget, state.id, self._sign)
        state.peer, state.boot = peer, circuit.boot
        state.path = PeerPath(socket, circuit.circuit, circuit.size, peer, lambda event: self._handle(state, event))
        state.path.flush()

    def _handle(self, state: PeerState, event: PeerEvent) -> None:
        match event:
            case FlowReadable(flow) if flow in state.owners:
                state.owners[flow].readable(flow)
            case FlowWritable(flow) if flow in state.owners:
                state.owners[flow].writable(flow)
            case FlowOpened(flow, address) if flow in state.owners:
                state.owners[flow].opened(flow, address)
            case FlowRefused(flow, reason, detail) if flow in state.owners:
                state.draining |= reason is Reason.DRAINING
                state.owners.pop(flow).refused(reason, detail)
            case DatagramArrived(flow, payload) if flow in state.owners:
                state.owners[flow].datagram(payload)
            case FlowUnreachable(flow, reason) if flow in state.owners:
                state.owners[flow].unreachable(reason)
            case ResolveAnswered(request, message, reason):
                self._answered(request, message, reason)
            case PeerReady():
                log.info("peer connection proved", tunnel=state.tunnel_name)
                self._ready(state)
                if state.index == DATAGRAMS and state.peer is not None:
                    self.datagrams_ready(state.peer.datagram_room())
            case PeerClosed(reason, detail, ours):
                log.info("peer connection over", tunnel=state.tunnel_name, reason=reason.word, detail=detail, ours=ours)
                self._lost(state, reason)

    def _ready(self, state: PeerState) -> None:
        waiting, state.waiting = state.waiting, []
        for then in waiting:
            then(state.peer, Reason.UNKNOWN)

    def _lost(self, state: PeerState, reason: Reason) -> None:
        states = self._states.get((state.tunnel, state.index), [])
        if state in states:
            states.remove(state)
        if state.path is not None:
            state.path.close()
        waiting, state.waiting = state.waiting, []
        for then in waiting:
            then(None, reason)

    def away(self, path: PeerPath) -> None:
        """The connector may be gone: new flows go elsewhere, and so do those that were opening; the others are kept
        for the hold time, or until it is heard again."""
        for state in self.states():
            if state.path is path and not state.gone:
                log.info("connector away", tunnel=state.tunnel_name, connector=state.boot.hex()[:8])
                state.away = self._loop.time()
                self._loop.call_later(HOLD, self._give_up, state, state.away)
                self._turn_away(state)

    def _turn_away(self, state: PeerState) -> None:
        waiting, state.waiting = state.waiting, []
        for then in waiting:
            then(None, Reason.PEER_GONE)
        for flow, owner in list(state.owners.items()):
            if not flow.opened and state.peer is not None:
                del state.owners[flow]
                state.peer.cancel(flow)
                owner.refused(Reason.PEER_GONE, "")
        self.flush(state)

    def _give_up(self, state: PeerState, away: float) -> None:
        if state.away == away and state.gone and state.path is not None:
            self.ended(state.path, Reason.PEER_GONE)

    def renew(self, socket: CircuitSocket) -> None:
        """The switch behind this socket was restarted: living peer connections get circuits anew."""
        for state in self.states():
            if state.path is not None and state.path.socket is socket:
                self._spawn(self._renew(state, state.path))

    async def _renew(self, state: PeerState, path: PeerPath) -> None:
        """Asks for a circuit to the same connector process until it is there again, at most for the hold time."""
        until = self._loop.time() + HOLD
        circuit = path.circuit
        while state.peer is not None and not state.peer.closed and path.circuit == circuit:
            try:
                given, socket = await self._switches.ask(state.index, state.id, state.permit, (), state.boot)
            except DeniedError as error:
                if self._loop.time() > until:
                    self.ended(path, error.reason)
                    return
                self.away(path)
                await asyncio.sleep(RENEW_EVERY)
                continue
            state.away = None
            path.move(socket, given.circuit, given.size)
            log.info("peer connection has a new circuit", tunnel=state.tunnel_name)

    def ended(self, path: PeerPath, reason: Reason) -> None:
        """The circuit of a peer connection is over, and no other takes its place (yet)."""
        for state in self.states():
            if state.path is path and state.peer is not None:
                state.peer.close(reason, self._loop.time())
                path.flush()

    def flush(self, state: PeerState) -> None:
        if state.path is not None:
            state.path.flush()

    def state_of(self, peer: AgentPeer) -> PeerState | None:
        return next((state for state in self.states() if state.peer is peer), None)

    def states(self) -> list[PeerState]:
        return [state for states in self._states.values() for state in states]

    # ---- names ----

    async def resolve(self, granted: Granted, query: bytes) -> bytes:
        """Asks the tunnel's private resolver: a whole DNS message. Raises DeniedError."""
        state = self._usable(granted, STREAMS)
        request, self._next_question = self._next_question, self._next_question + 1
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._questions[request] = future

        def start(peer: AgentPeer | None, reason: Reason) -> None:
            if peer is None:
                self._answered(request, b"", reason)
            elif not peer.resolve(request, granted.grant, query):
                self._answered(request, b"", Reason.LIMIT)
            self.flush(state)

        self._when_ready(state, start)
        try:
            async with asyncio.timeout(RESOLVE_TIME):
                return await future
        except TimeoutError:
            raise DeniedError(Reason.RESOLVER_FAILED) from None
        finally:
            self._questions.pop(request, None)

    def _answered(self, request: int, message: bytes, reason: Reason | None) -> None:
        future = self._questions.get(request)
        if future is None or future.done():
            return
        if reason is None:
            future.set_result(message)
        else:
            future.set_exception(DeniedError(reason))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Ends every peer connection, so that connectors know at once."""
        for task in self._tasks:
            task.cancel()
        for state in self.states():
            if state.peer is not None and state.path is not None:
                state.peer.close(Reason.PEER_GONE, self._loop.time())
                state.path.flush()


class Opening:
    """One flow between grant and `opened`; `cancel` when the app gives up."""

    def __init__(self, peers: Peers, wanted: Wanted) -> None:
        self._peers = peers
        self._wanted = wanted
        self._cancelled = False
        self._peer: AgentPeer | None = None
        self._state: PeerState | None = None
        self.flow: Flow | None = None

    def start(self, peer: AgentPeer | None, reason: Reason) -> None:
        if self._cancelled:
            return
        if peer is None:
            self._wanted.owner.refused(reason, "")
            return
        self._peer, self._state = peer, self._peers.state_of(peer)
        flow = peer.open(self._wanted.message.flow, self._wanted.granted.grant, self._wanted.message)
        if flow is None or self._state is None:
            self._wanted.owner.refused(Reason.LIMIT, "streams of one peer connection")
            return
        self.flow = flow
        self._state.owners[flow] = self._wanted.owner
        self._peers.flush(self._state)

    @property
    def state(self) -> PeerState | None:
        """The peer connection that carries the flow."""
        return self._state

    def cancel(self) -> None:
        """The app gave up before the origin answered."""
        self._cancelled = True
        if self._peer is not None and self.flow is not None and self._state is not None:
            self._state.owners.pop(self.flow, None)
            self._peer.cancel(self.flow)
            self._peers.flush(self._state)

    def send_datagram(self, payload: bytes) -> bool:
        """UDP and ICMP, once opened: False if it was dropped. `flush` after the last one."""
        if self._peer is None or self.flow is None:
            return False
        return self._peer.send_datagram(self.flow, payload)

    def settled(self) -> None:
        """The pump is done: both directions are over, as far as this side goes."""
        if self._peer is not None and self.flow is not None and self._state is not None:
            self._state.owners.pop(self.flow, None)
            self._peer.settled(self.flow)

    def flush(self) -> None:
        if self._state is not None:
            self._peers.flush(self._state)
