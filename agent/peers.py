"""The peer connections towards connectors: one for each tunnel, another when streams run short.

A flow that was granted waits here until its tunnel's connection is proved; then it is opened on it. Who asks for what a
circuit needs (a switch) is the node's affair; what a tunnel must show before it is believed is decided here: the
network key's word on its CA, and no revision below the highest seen (protocol.md, section 4).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
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
from warren.fabric.identity.statements import TunnelStatement

log = structlog.get_logger()

ALPN = "warren-peer/1"
PEER_LIMITS = Limits(idle_timeout=900.0, keep_alive=20.0, streams=1024, connection_window=256 << 20)
"""Idle time-out not below the hold times (protocol.md, section 3); windows above all that credit allows."""
STREAMS, DATAGRAMS = 0, 1
"""Index of the circuit sockets: TCP flows on the one, UDP and ICMP on the other, nothing shared but the host."""
CONNECTIONS = 16
"""Peer connections of either kind to one tunnel: 1,024 flows each, half of what the flow table holds."""
SPREAD = 16
"""Flows on one connector from which on another one of the tunnel is looked for, to share what comes next."""
ALONE = 10.0
"""Seconds for which a tunnel that had no further connector is not asked for one again."""
TRIES = 4
"""Connectors that one opening is tried at."""
ELSEWHERE = frozenset(
    {
        Reason.HOST_UNREACHABLE, Reason.NET_UNREACHABLE, Reason.NO_SUCH_NAME, Reason.RESOLVER_FAILED, Reason.CEILING,
        Reason.RESERVED_ADDRESS, Reason.LIMIT, Reason.INTERNAL, Reason.DRAINING, Reason.PEER_GONE,
    }
)  # fmt: skip
"""Answers of one connector that another one may not share: where it stands, what it allows, how full it is. A refusal
by the origin itself is the origin's answer; a time-out has left the app no time to try again."""
WAITING = 4096
"""Flows that wait for one tunnel's connection to be proved: as many as the capture holds SYNs."""
HOLD = 60.0
"""Seconds that flows are kept while their connector can't be reached (protocol.md, section 3)."""
RENEW_EVERY = 1.0
RESOLVE_TIME = 4.0
"""Seconds that a private resolver may take: a little less than the stub resolver that asks us waits."""


class Switches(Protocol):
    """Where circuits come from (fabric/aio/node.py)."""

    async def ask(
        self,
        index: int,
        peer: bytes,
        permit: bytes,
        tried: tuple[bytes, ...],
        boot: bytes = b"",
        *,
        patient: bool = True,
    ) -> tuple[Circuit, CircuitSocket]:
        """A circuit for a peer connection; `boot`: only to that connector process; `tried`: to none of those;
        `patient`: wait a little for one that is not there yet. Raises DeniedError."""


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
    avoids: frozenset[bytes] = frozenset()
    """Its connector has to be another than these."""
    path: PeerPath | None = None
    peer: AgentPeer | None = None
    boot: bytes = b""
    away: float | None = None
    """Since when the connector is said to be gone, by the loop's clock."""
    draining: bool = False
    renewing: bool = False
    """Another circuit is being asked for."""
    waiting: list[Callable[[AgentPeer | None, Reason], None]] = field(default_factory=list)
    openings: dict[Flow, Opening] = field(default_factory=dict)
    """Flows that are opening or open."""

    @property
    def gone(self) -> bool:
        """The connector is said to be gone, and nothing of it was heard since."""
        return self.away is not None and (self.path is None or self.path.heard <= self.away)

    @property
    def carries(self) -> str:
        """What for, in a word."""
        return "tcp" if self.index == STREAMS else "udp"

    @property
    def load(self) -> int:
        """Flows, also those that wait."""
        return len(self.openings) + len(self.waiting)

    def usable(self, tried: Collection[bytes]) -> bool:
        """New flows may be opened here, and it is not, nor will be, one of those connectors."""
        if self.gone or self.draining or (self.peer is not None and self.peer.closed):
            return False
        if self.boot:
            return self.boot not in tried and self.load < PEER_LIMITS.streams - 8
        # not connected yet: one that has to be another than some may come to nothing, and is for those who want that
        return set(tried) <= self.avoids if tried else not self.avoids


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
        self._alone: dict[tuple[str, int], float] = {}
        """Until when a tunnel is taken to have no further connector."""
        self.datagrams_ready: Callable[[int], None] = lambda room: None
        """Called with the room for a datagram whenever a connection that carries some is proved."""
        self.outdated: Callable[[], None] = lambda: None
        """Called when what the judge granted some time ago no longer fits: a tunnel has another key since."""
        self._revisions: dict[str, int] = {}
        self._questions: dict[int, asyncio.Future[bytes]] = {}
        self._next_question = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    # ---- flows ----

    def open(self, wanted: Wanted) -> Opening:
        """Opens a flow as soon as its tunnel can be reached; the owner hears `opened` or `refused`."""
        opening = Opening(self, wanted)
        self.begin(opening)
        return opening

    def begin(self, opening: Opening) -> None:
        """Opens it at a connector that was not tried yet, if there is one."""
        wanted = opening.wanted
        index = STREAMS if wanted.message.protocol == "tcp" else DATAGRAMS
        try:
            state = self._usable(wanted.granted, index, opening.tried)
        except DeniedError as error:
            opening.refused(error.reason, error.detail)
            return
        self._when_ready(state, opening.start)

    def _usable(self, granted: Granted, index: int, tried: Collection[bytes] = ()) -> PeerState:
        """The least loaded peer connection of the tunnel, made if there is none or all are full. Raises DeniedError."""
        states = self._states.setdefault((granted.tunnel, index), [])
        able = [state for state in states if state.usable(tried)]
        if not able:
            return self._make(granted, index, tried)
        state = min(able, key=lambda state: state.load)
        state.permit = granted.permit
        if state.load >= SPREAD and all(one.boot for one in states) and not self.alone(state):
            self._make(granted, index, {one.boot for one in states})
        return state

    def alone(self, state: PeerState) -> bool:
        """Its tunnel had no further connector, a moment ago."""
        return self._loop.time() < self._alone.get((state.tunnel, state.index), 0.0)

    def _make(self, granted: Granted, index: int, tried: Collection[bytes]) -> PeerState:
        states = self._states[granted.tunnel, index]
        if len(states) >= CONNECTIONS:
            raise DeniedError(Reason.LIMIT, "peer connections to one tunnel")
        said = self._believe(granted)
        avoids = frozenset(tried)
        state = PeerState(granted.tunnel, granted.tunnel_name, os.urandom(16), index, granted.permit, avoids)
        states.append(state)
        self._spawn(self._connect(state, granted, said))
        return state

    def _believe(self, granted: Granted) -> TunnelStatement:
        """The network key has to have signed the tunnel, and nothing older than what was seen. An older statement may
        have been kept from before a rotation: STALE_GRANT, on which the judge is asked once more."""
        lowest = self._revisions.get(granted.tunnel, 0)
        said = statements.verify_tunnel(granted.statement, granted.authority, self._network)
        if said.tunnel != granted.tunnel:
            raise DeniedError(Reason.WRONG_TUNNEL, granted.tunnel_name)
        if said.revision < lowest:
            raise DeniedError(Reason.STALE_GRANT, f"the tunnel's revision {said.revision} is older than {lowest}")
        self._revisions[granted.tunnel] = said.revision
        return said

    def _when_ready(self, state: PeerState, then: Callable[[AgentPeer | None, Reason], None]) -> None:
        if state.peer is not None and state.peer.ready and not state.peer.closed:
            then(state.peer, Reason.UNKNOWN)
        elif len(state.waiting) >= WAITING:
            then(None, Reason.LIMIT)
        else:
            state.waiting.append(then)

    # ---- connections ----

    async def _connect(self, state: PeerState, granted: Granted, said: TunnelStatement) -> None:
        leaving = tuple(other.boot for other in self._states[granted.tunnel, state.index] if other.draining)
        try:
            circuit, socket = await self._switches.ask(
                state.index, state.id, granted.permit, (*state.avoids, *leaving), patient=not state.avoids
            )
            root = believed(granted, said, circuit.authority, time.time())
        except DeniedError as error:
            if error.reason is Reason.STALE_GRANT:
                self.outdated()
            if state.avoids and error.reason is Reason.TUNNEL_DOWN:
                self._alone[granted.tunnel, state.index] = self._loop.time() + ALONE
            self._lost(state, error.reason)
            return
        config = ClientConfig(
            alpn=ALPN,
            server_name=certificates.tunnel_name(granted.tunnel),
            root=certificates.pem(root),
            limits=replace(PEER_LIMITS, datagrams=state.index == DATAGRAMS),
        )
        now = self._loop.time()
        peer = AgentPeer(self._engine.connect(config, now), now, self._budget, state.id, self._sign)
        state.peer, state.boot = peer, circuit.boot

        def handle(event: PeerEvent) -> None:
            self._handle(state, event)

        state.path = PeerPath(socket, circuit.circuit, circuit.size, peer, handle, agent=True)
        state.path.flush()

    def _handle(self, state: PeerState, event: PeerEvent) -> None:
        match event:
            case FlowReadable(flow) if flow in state.openings:
                state.openings[flow].owner.readable(flow)
            case FlowWritable(flow) if flow in state.openings:
                state.openings[flow].owner.writable(flow)
            case FlowOpened(flow, address) if flow in state.openings:
                state.openings[flow].owner.opened(flow, address)
            case FlowRefused(flow, reason, detail) if flow in state.openings:
                state.draining |= reason is Reason.DRAINING
                state.openings.pop(flow).refused(reason, detail)
            case DatagramArrived(flow, payload) if flow in state.openings:
                state.openings[flow].owner.datagram(payload)
            case FlowUnreachable(flow, reason) if flow in state.openings:
                state.openings[flow].owner.unreachable(reason)
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

    def away(self, path: PeerPath, circuit: bytes) -> None:
        """A switch has lost the connector. If it is the last one that had it, it may be gone: new flows go elsewhere,
        and so do those that were opening; the others are kept for the hold time, or until it is heard again."""
        path.away.add(circuit)
        if all(way.circuit in path.away for way in path.ways):
            self._away(path)

    def _away(self, path: PeerPath) -> None:
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
        for flow, opening in list(state.openings.items()):
            if not flow.opened and state.peer is not None:
                del state.openings[flow]
                state.peer.cancel(flow)
                opening.refused(Reason.PEER_GONE, "")
        self.flush(state)

    def _give_up(self, state: PeerState, away: float) -> None:
        if state.away == away and state.gone and state.path is not None:
            self.ended(state.path, Reason.PEER_GONE)

    def renew(self, socket: CircuitSocket) -> None:
        """The switch behind this socket was restarted, or is gone: living peer connections get circuits anew, those
        that have no other one at once."""
        for state in self.states():
            circuit = state.path.through(socket) if state.path is not None else None
            if state.path is None or circuit is None or state.path.remove(circuit) or state.renewing:
                continue
            self._spawn(self._renew_once(state, state.path))

    async def _renew_once(self, state: PeerState, path: PeerPath) -> None:
        state.renewing = True
        try:
            await self._renew(state, path)
        finally:
            state.renewing = False

    async def _renew(self, state: PeerState, path: PeerPath) -> None:
        """Asks for a circuit to the same connector process until it is there again, at most for the hold time."""
        until = self._loop.time() + HOLD
        circuit = path.circuit
        while state.peer is not None and not state.peer.closed and path.circuit == circuit and len(path.ways) == 1:
            try:
                given, socket = await self._switches.ask(state.index, state.id, state.permit, (), state.boot)
            except DeniedError as error:
                if self._loop.time() > until:
                    self.ended(path, error.reason)
                    return
                if error.reason is not Reason.JUDGE_AWAY:  # that says nothing of the connector
                    self._away(path)
                await asyncio.sleep(RENEW_EVERY)
                continue
            state.away = None
            path.add(socket, given.circuit, given.size)
            path.remove(circuit)  # if it led through another edge
            log.info("peer connection has a new circuit", tunnel=state.tunnel_name)

    def dropped(self, path: PeerPath, circuit: bytes) -> None:
        """A circuit is over; its peer connection goes on over another one, or ends."""
        if not path.remove(circuit):
            self.ended(path, Reason.PEER_GONE)

    def ended(self, path: PeerPath, reason: Reason) -> None:
        """A peer connection has no circuit any more."""
        for state in self.states():
            if state.path is path and state.peer is not None:
                state.peer.close(reason, self._loop.time())
                path.flush()

    def end_all(self, reason: Reason) -> None:
        """Every flow ends with a reset."""
        for state in self.states():
            if state.path is not None:
                self.ended(state.path, reason)

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
            reached = state.peer is not None and state.peer.ready
            raise DeniedError(Reason.RESOLVER_FAILED if reached else Reason.TUNNEL_DOWN) from None
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


def believed(granted: Granted, said: TunnelStatement, named: bytes, now: float) -> bytes:
    """The CA certificate (DER) that a connector is held against, of those that the network key's statement allows.

    `named`: SHA-256 of the one that the switch says it showed; a lie about it ends in a failed handshake, no more.
    `now`: Unix time in seconds. Raises DeniedError(STALE_GRANT): a newer or an older one than the statement knows.
    """
    if named in (b"", said.authority):
        return granted.authority
    if named == said.former and now < said.until and certificates.fingerprint(granted.former) == named:
        return granted.former
    raise DeniedError(Reason.STALE_GRANT, "its connector has another key than the judge said")


class Opening:
    """One flow between grant and `opened`; `cancel` when the app gives up."""

    def __init__(self, peers: Peers, wanted: Wanted) -> None:
        self.wanted = wanted
        self.owner = wanted.owner
        self.tried: set[bytes] = set()
        """Boot ids of connectors that said no."""
        self.flow: Flow | None = None
        self._peers = peers
        self._cancelled = False
        self._peer: AgentPeer | None = None
        self._state: PeerState | None = None
        self._first: tuple[Reason, str] | None = None
        """What the first connector answered: the app hears that, unless another one opens the flow."""

    def start(self, peer: AgentPeer | None, reason: Reason) -> None:
        """A peer connection is there, or none can be had."""
        if self._cancelled:
            return
        if peer is None:
            self.refused(reason, "")
            return
        self._peer, self._state = peer, self._peers.state_of(peer)
        message = self.wanted.message
        flow = peer.open(message.flow, self.wanted.granted.grant, message)
        if flow is None or self._state is None:
            self.refused(Reason.LIMIT, "streams of one peer connection")
            return
        self.flow = flow
        self._state.openings[flow] = self
        self._peers.flush(self._state)

    def refused(self, reason: Reason, detail: str) -> None:
        """A connector said no, or none can be had: the others are tried before the app hears it."""
        state, self._state, self._peer, self.flow = self._state, None, None, None
        if self._first is None:
            self._first = reason, detail
        again = reason in ELSEWHERE and len(self.tried) < TRIES - 1
        if again and state is not None and not self._peers.alone(state):
            self.tried.add(state.boot)
            message = msgspec.structs.replace(self.wanted.message, flow=os.urandom(16))
            self.wanted = replace(self.wanted, message=message)
            self._peers.begin(self)
        else:
            self.owner.refused(*self._first)

    @property
    def state(self) -> PeerState | None:
        """The peer connection that carries the flow."""
        return self._state

    def cancel(self) -> None:
        """The app gave up before the origin answered."""
        self._cancelled = True
        if self._peer is not None and self.flow is not None and self._state is not None:
            self._state.openings.pop(self.flow, None)
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
            self._state.openings.pop(self.flow, None)
            self._peer.settled(self.flow)

    def flush(self) -> None:
        if self._state is not None:
            self._peers.flush(self._state)
