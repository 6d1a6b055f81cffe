"""The peer connections towards connectors: one for each tunnel, another when streams run short.

A flow that was granted waits here until its tunnel's connection is proved; then it is opened on it. Who asks for what a
circuit needs (a switch) is the node's affair; what a tunnel must show before it is believed is decided here: the
network key's word on its CA, and no revision below the highest seen (protocol.md, section 4).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Protocol

import structlog

from warren.agent.config import HOLD
from warren.agent.opening import Opening, Wanted
from warren.agent.peer_state import DATAGRAMS, PEER_LIMITS, STREAMS, PeerState
from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.aio.peer_path import PeerPath
from warren.fabric.core.agent_peer import AgentPeer
from warren.fabric.core.credit import Budget
from warren.fabric.core.engine import ClientConfig, Engine
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.attachment import Circuit
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
CONNECTIONS = 16
"""Peer connections of either kind to one tunnel: 1,024 flows each, half of what the flow table holds."""
SPREAD = 16
"""Flows on one connector from which on another one of the tunnel is looked for, to share what comes next."""
ALONE = 10.0
"""Seconds for which a tunnel that had no further connector is not asked for one again."""
WAITING = 4096
"""Flows that wait for one tunnel's connection to be proved: as many as the capture holds SYNs."""
RENEW_EVERY = 1.0
PERMIT_TRIES = 4
"""Flows that the judge is asked about for another pass: some may not be granted any more."""
RESOLVE_TIME = 4.0
"""Seconds that a private resolver may take: a little less than the stub resolver that asks us waits."""


class Judge(Protocol):
    """Who decides flows (fabric/aio/node.py)."""

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Granted:
        """Raises DeniedError."""


class Switch(Protocol):
    """Where circuits come from: one edge's (fabric/aio/node.py), or whichever answers (agent/switchboard.py)."""

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


class Switches(Judge, Switch, Protocol):
    """A tunnel's, and who decides its flows (agent/switchboard.py)."""


class Peers:
    """All peer connections of the agent."""

    def __init__(
        self,
        engine: Engine,
        network: bytes,
        sign: Callable[[bytes, bytes], tuple[bytes, bytes]],
        switches: Callable[[str], Switches],
        hold: float = HOLD,
    ) -> None:
        """`network`: DER of its certificate. `sign`: the device key's proof, (challenge, leaf) → (key, signature).
        `switches`: by the tunnel's id, those that its connectors are attached to. `hold`: seconds for which flows are
        kept whose connector can't be reached."""
        self._engine = engine
        self._network = network
        self._sign = sign
        self._switches = switches
        self._hold = hold
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
        self._when_ready(state, lambda peer, reason: opening.start(state, peer, reason))

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
            circuit, socket = await self._switches(state.tunnel).ask(
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
        self._look_away(path)

    def _look_away(self, path: PeerPath) -> None:
        if not path.counting:
            self._away(path)

    def _away(self, path: PeerPath) -> None:
        for state in self.states():
            if state.path is path and not state.gone:
                log.info("connector away", tunnel=state.tunnel_name, connector=state.boot.hex()[:8])
                state.away = self._loop.time()
                self._loop.call_later(self._hold, self._give_up, state, state.away)
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

    def leave(self, sockets: Iterable[CircuitSocket], *, silent: bool) -> None:
        """Peer connections go on through other edges than the one behind these sockets, which does not answer
        (`silent`), or is not connected."""
        for socket in sockets:
            if silent:
                self.silent(socket)
            else:
                self.renew(socket)

    def renew(self, socket: CircuitSocket) -> None:
        """The switch behind this socket was restarted, or has left the list: living peer connections get circuits
        anew, those that have no other one that counts at once."""
        for state, path, circuit in self._through(socket):
            removed = path.remove(circuit)
            if removed and path.away:  # an edge that only does not answer says nothing of the connector
                self._look_away(path)
            if not (removed and path.counting) and not state.renewing:
                self._spawn(self._renew_once(state, path))

    def silent(self, socket: CircuitSocket) -> None:
        """The switch behind this socket does not answer, others do: its circuits don't count until something comes by
        them, and who has no other one gets it at once."""
        for state, path, circuit in self._through(socket):
            if len(path.ways) > 1:
                path.silent.add(circuit)
            elif not state.renewing:
                self._spawn(self._renew_once(state, path))

    def _through(self, socket: CircuitSocket) -> list[tuple[PeerState, PeerPath, bytes]]:
        ways = [(state, state.path, state.path.through(socket)) for state in self.states() if state.path is not None]
        return [(state, path, circuit) for state, path, circuit in ways if circuit is not None]

    async def _renew_once(self, state: PeerState, path: PeerPath) -> None:
        state.renewing = True
        try:
            await self._renew(state, path)
        finally:
            state.renewing = False

    async def _renew(self, state: PeerState, path: PeerPath) -> None:
        """Asks for a circuit to the same connector process until it is there again: at most for the hold time once an
        edge has said that it is not. No answer at all says nothing of the connector; the engine's idle time-out bounds
        that."""
        until: float | None = None
        circuit = path.circuit
        while state.peer is not None and not state.peer.closed and path.circuit == circuit and len(path.ways) == 1:
            try:
                switches = self._switches(state.tunnel)
                given, socket = await switches.ask(state.index, state.id, state.permit, (), state.boot)
            except DeniedError as error:
                if error.reason is Reason.GRANT_EXPIRED and await self._renew_permit(state):
                    continue
                now = self._loop.time()
                if error.reason is Reason.JUDGE_AWAY:
                    until = state.away = None
                elif now > (until := until or now + self._hold):
                    self.ended(path, error.reason)
                    return
                else:
                    self._away(path)
                await asyncio.sleep(RENEW_EVERY)
                continue
            state.away = None
            path.add(socket, given.circuit, given.size)
            path.remove(circuit)  # if it led through another edge
            log.info("peer connection has a new circuit", tunnel=state.tunnel_name)

    async def _renew_permit(self, state: PeerState) -> bool:
        """The pass has ended meanwhile. Whether there is another one."""
        before = state.permit
        state.permit = await permit_for(state, self._switches(state.tunnel))
        return state.permit != before

    def dropped(self, path: PeerPath, circuit: bytes) -> None:
        """A circuit is over; its peer connection goes on over another one, or ends."""
        if not path.remove(circuit):
            self.ended(path, Reason.PEER_GONE)
        else:
            self._look_away(path)

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


async def permit_for(state: PeerState, judge: Judge) -> bytes:
    """Another pass for a peer connection, as the judge gives it with a decision on one of its flows; the one that it
    has, where no flow is granted any more."""
    wanted = {
        (m.protocol, m.port, m.address, m.host) for m in (opening.wanted.message for opening in state.openings.values())
    }
    for protocol, port, address, host in sorted(wanted)[:PERMIT_TRIES]:
        try:
            granted = await judge.decide(protocol, port, address=address, host=host)
        except DeniedError:
            continue
        if granted.tunnel == state.tunnel:
            return granted.permit
    return state.permit
