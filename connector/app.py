"""The connector's process: a node towards each edge, a peer connection for each agent that was offered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from warren.connector.config import ConnectorConfig
from warren.connector.face import Face, check_successor, make_face
from warren.connector.flows import Counts, Flows
from warren.connector.gate import Gate
from warren.connector.health import families, own_listeners_spared, ready
from warren.connector.lease import Lease
from warren.connector.resolve import take_names_as_they_are
from warren.fabric.aio import logs
from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.aio.edges import Newest, PerEdge, serving
from warren.fabric.aio.elapsed import elapsed
from warren.fabric.aio.node import Node
from warren.fabric.aio.owner import Identity
from warren.fabric.aio.peer_path import PeerPath, Way
from warren.fabric.aio.presence import Presence
from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.credit import Budget
from warren.fabric.core.errors import ConfigError, DeniedError, WireError
from warren.fabric.core.messages import session as say
from warren.fabric.core.messages.attachment import Offer
from warren.fabric.core.messages.peer import LABEL, Prove
from warren.fabric.core.peer import PeerClosed, PeerEvent, PeerReady
from warren.fabric.core.reasons import Reason
from warren.fabric.daemon.health import Health, serve_health
from warren.fabric.daemon.privileges import keep_only
from warren.fabric.daemon.scheduling import in_batches
from warren.fabric.daemon.systemd import notify
from warren.fabric.daemon.trimming import trimmed
from warren.fabric.engines import choose
from warren.fabric.identity import keys, proof, tokens
from warren.fabric.identity.grants import Verifier
from warren.fabric.identity.statements import EdgeList

log = structlog.get_logger()

PEERS = 4096
"""Peer connections and offers that wait for their first packet: 155 KiB each with its engine."""
FIRST_PACKET = 10.0
"""Seconds that an offered circuit waits for the agent's first packet."""
BEAT = 1.0


class AgentAtDoor:
    """An offered circuit: nothing is kept for it but this until the agent's first packet comes."""

    def __init__(self, connector: Connector, offer: Offer, circuit_socket: CircuitSocket, face: Face) -> None:
        """`face`: the one that the switch told the agent to expect."""
        self.connector = connector
        self.offer = offer
        self.face = face
        self.socket = circuit_socket
        self.path: PeerPath | None = None
        self.peer: ConnectorPeer | None = None
        self.flows: Flows | None = None

    def first(self, packet: bytes) -> PeerPath | None:
        """The first packet: makes the peer connection, if it is one of QUIC's. Called by the circuit socket."""
        self.path = self.connector.answer(self, packet)
        return self.path


class Connector:
    """One running replica of a tunnel."""

    def __init__(self, config: ConnectorConfig, token_text: str) -> None:
        """Raises ConfigError for a bad token."""
        self._loop = asyncio.get_running_loop()
        self._chosen = choose(config.engine, config.controller)
        self.engine = self._chosen.engine
        self.token = token = tokens.parse_tunnel_token(token_text)
        self._key = keys.generate()
        self._face = make_face(self._key, token, config.hold)
        self._faces = {self._face.identity: self._face}
        """By what an attachment shows: the present one, and that of before where an edge has not taken the new one."""
        self._renewing: asyncio.Task[None] | None = None
        self.gate = Gate(token.tunnel, Verifier(token.network, token.edges()), own_listeners_spared(config))
        self.counts = Counts()
        self._budget = Budget()
        self._doors: dict[bytes, AgentAtDoor] = {}
        self._by_peer: dict[bytes, AgentAtDoor] = {}
        self.draining = False
        self._lease, self._hold = Lease(config.lease, elapsed()), config.hold
        self._edges = Newest(token.network, token.edges())
        self._nodes = PerEdge(lambda edge: Node(self.engine, self._face.identity, edge, self), self._serving())
        self._presences = PerEdge(lambda edge: Presence(self._face.identity, edge), self._serving())
        self._beat: asyncio.TimerHandle | None = None

    @property
    def nodes(self) -> list[Node]:
        """One for each edge that serves our tunnel."""
        return self._nodes.all

    def _serving(self) -> EdgeList:
        return serving(self.token.tunnel, self._edges.edges)

    def start(self) -> None:
        log.info("QUIC engine", **self._chosen.words())
        self._nodes.start()
        self._presences.start()
        self._tick()

    def _tick(self) -> None:
        self._beat = self._loop.call_later(BEAT, self._tick)
        self._keep_lease()
        for node in self.nodes:
            node.roam()
            try:
                node.health(self.counts.open, self.draining)
            except WireError as error:
                log.warning("the edge does not read", detail=str(error))

    def _keep_lease(self) -> None:
        """What no judge confirms ends when the lease does."""
        if self._lease.over([node.edge.id for node in self.nodes if node.state == "connected"], elapsed()):
            ended = self.gate.revocations.end_all()
            if ended:
                seconds = self._lease.seconds
                log.warning("flows ended: no edge has confirmed them for the lease", flows=ended, seconds=seconds)

    # ---- another token ----

    def reread(self, read: Callable[[], str]) -> None:
        """Takes the token that `read` gives now. Flows go on; where it can't be taken, the present one stays in use."""
        try:
            token = tokens.parse_tunnel_token(read())
            check_successor(token, self.token)
        except ConfigError as error:
            log.warning("the token was not reread, the one in use stays", why=str(error))
            return
        if token == self.token and all(node.shown is self._face.identity for node in self.nodes):
            log.info("the token is the same as before")
        elif self._renewing is not None and not self._renewing.done():
            log.warning("the token was not reread, the one before it is being taken still")
        else:
            self._renewing = asyncio.create_task(self._renew(token))

    async def _renew(self, token: tokens.TunnelToken) -> None:
        face = make_face(self._key, token, self._hold)
        self._faces[face.identity] = face
        refused = await asyncio.gather(*(self._renew_at(node, face) for node in list(self.nodes)))
        if all(refused):
            return
        self._face, self.token = face, token
        shown = {face.identity, *(node.shown for node in self.nodes)}
        self._faces = {identity: one for identity, one in self._faces.items() if identity in shown}
        for presence in self._presences.all:
            presence.identity = face.identity
        self.edges(token.signed_edges)
        log.info("token reread", tunnel=token.name, revision=token.verify().revision)

    async def _renew_at(self, node: Node, face: Face) -> str:
        """Why this edge does not take it; "": it does, or will once it can be reached."""
        found = await node.renewed(face.identity)
        if isinstance(found, Node):
            self.nodes[self.nodes.index(node)] = found
            return ""
        log.warning("an edge does not take the new token; SIGHUP tries again", edge=str(node.edge), reason=found.word)
        return found.text

    def __len__(self) -> int:
        """Agents with a peer connection."""
        return len(self._by_peer)

    def phases(self) -> dict[str, int]:
        """Peer connections in each phase of congestion control."""
        peers = [door.peer for door in self._by_peer.values() if door.peer is not None]
        return Counter(peer.connection.statistics().phase for peer in peers)

    # ---- what nodes tell ----

    def connected(self) -> None:
        log.info("connector ready", tunnel=self.token.name)

    def disconnected(self, reason: Reason, detail: str) -> None:
        pass

    def forgotten(self, circuit_socket: CircuitSocket) -> None:
        """Agents ask for circuits, and are offered to us anew; what has another circuit goes on over that."""
        for door in list(self._by_peer.values()):
            circuit = door.path.through(circuit_socket) if door.path is not None else None
            if circuit is not None:
                self.dropped(circuit, circuit_socket)

    def network(self, network: say.Network) -> None:
        pass

    def silent(self, node: Node) -> None:
        pass  # agents choose the circuits

    def edges(self, signed: bytes) -> None:
        """What signs grants, and whom we attach to. Kept in memory: the token has a list for the next start."""
        if self._edges.take(signed):
            self.gate.verifier.update(self._edges.edges)
            self._nodes.follow(self._serving())
            self._presences.follow(self._serving())

    def welcomed(self, welcome: say.Welcome) -> None:
        self.gate.clock(welcome.edge, welcome.time, elapsed())
        for node in self.nodes:
            if node.edge.id == welcome.edge:
                node.judge.holding(self.gate.revocations.ids())
        for presence in self._presences.all:
            if presence.edge.id == welcome.edge:
                presence.there()

    def revoked(self, revoked: say.Revoked, node: Node) -> None:
        self._lease.told(node.edge.id, revoked.age, elapsed())
        ended = self.gate.revocations.revoke(revoked.epoch, revoked.entries)
        if ended:
            log.info("flows ended: what they stood on was taken back", flows=ended)

    def offered(self, offer: Offer, circuit_socket: CircuitSocket, identity: Identity) -> None:
        """Keeps the offer until the agent's first packet; a further circuit of a living connection stands by, or takes
        the place of the one through the same edge."""
        known = self._by_peer.get(offer.peer)
        if known is not None and known.path is not None and known.peer is not None:
            if known.offer.key == offer.key:  # which the handshake, if it is under way still, has yet to prove
                before = known.path.add(circuit_socket, offer.circuit, offer.size)
                self._doors.pop(before or b"", None)
                if known.path.through(circuit_socket) == offer.circuit:
                    self._doors[offer.circuit] = known
            return
        if len(self._doors) >= PEERS:
            log.warning("too many agents", limit=PEERS)
            return
        door = self._doors[offer.circuit] = AgentAtDoor(self, offer, circuit_socket, self._faces[identity])
        circuit_socket.expect(offer.circuit, door.first)
        self._loop.call_later(FIRST_PACKET, self._give_up, door)

    def _give_up(self, door: AgentAtDoor) -> None:
        if door.peer is None:
            self._forget(door)

    def dropped(self, circuit: bytes, circuit_socket: CircuitSocket) -> None:
        """A circuit is over; its peer connection goes on over another one, or waits for one until it is idle for too
        long."""
        door = self._doors.get(circuit)
        if door is not None and door.peer is None:
            self._forget(door)
        elif door is not None and door.path is not None and door.path.remove(circuit):
            del self._doors[circuit]

    def away(self, circuit: bytes, circuit_socket: CircuitSocket) -> None:
        pass  # its flows are held until the peer connection is idle for too long

    # ---- peer connections ----

    def answer(self, door: AgentAtDoor, packet: bytes) -> PeerPath | None:
        now = self._loop.time()
        connection = self.engine.accept(door.face.servers[door.offer.index], packet, now)
        if connection is None:
            return None
        greeting = os.urandom(32), self._face.identity.boot
        peer = ConnectorPeer(
            connection, now, self._budget, greeting, lambda said, challenge: self._prove(door, said, challenge)
        )
        door.peer = peer
        offer = door.offer

        def handle(event: PeerEvent) -> None:
            self._handle(door, event)

        path = door.path = PeerPath(door.socket, offer.circuit, offer.size, peer, handle, agent=False)
        door.flows = Flows(peer, self.gate, self.counts, path.flush, path.awake)
        if self.draining:
            door.flows.drain()
        self._by_peer[door.offer.peer] = door
        return path

    def _prove(self, door: AgentAtDoor, said: Prove, challenge: bytes) -> Reason | None:
        """The key must be the one that the switch saw, and the connection the one that the circuit is for."""
        if said.key != door.offer.key or said.peer != door.offer.peer:
            return Reason.BAD_PROOF
        try:
            proof.verify(said.key, said.signature, LABEL, challenge, door.face.leaf)
        except (DeniedError, WireError):
            return Reason.BAD_PROOF
        return None

    def _handle(self, door: AgentAtDoor, event: PeerEvent) -> None:
        if door.flows is not None:
            door.flows.handle(event)
        match event:
            case PeerReady():
                log.info("agent connected", device=keys.thumbprint(door.offer.key)[:8])
            case PeerClosed(reason, detail, _):
                log.info("agent gone", reason=reason.word, detail=detail)
                self._forget(door)

    def _forget(self, door: AgentAtDoor) -> None:
        ways = door.path.ways if door.path is not None else [Way(door.socket, door.offer.circuit)]
        for _, circuit in ways:
            self._doors.pop(circuit, None)
        if self._by_peer.get(door.offer.peer) is door:
            del self._by_peer[door.offer.peer]
        door.socket.unexpect(door.offer.circuit)
        self._loop.call_soon(self._leave, door, ways)

    def _leave(self, door: AgentAtDoor, ways: list[Way]) -> None:
        """Once the last words were sent: behind the circuit's end they would reach nobody."""
        if door.path is not None:
            door.path.close()
        for circuit_socket, circuit in ways:
            for node in self.nodes:
                if circuit_socket in node.sockets:
                    node.drop(circuit, Reason.PEER_GONE)
        door.peer = door.path = door.flows = None  # they hold it, too

    # ---- end ----

    async def drain(self, patience: float) -> None:
        """No new flows; those that are open get `patience` seconds to end."""
        self.draining = True
        for door in self._doors.values():
            if door.flows is not None:
                door.flows.drain()
        until = self._loop.time() + patience
        if self.counts.open:
            log.info("draining", flows=self.counts.open, seconds=patience)
        while self.counts.open and (left := until - self._loop.time()) > 0:
            self.counts.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.counts.changed.wait()

    async def close(self) -> None:
        """Resets what is still open, and says goodbye."""
        if self._beat is not None:
            self._beat.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        for door in dict.fromkeys(self._doors.values()):
            if door.peer is not None and door.path is not None:
                door.peer.close(Reason.DRAINING, self._loop.time())
                door.path.flush()
        await self._nodes.close()
        await self._presences.close()


def run(config: ConnectorConfig, token: str, read: Callable[[], str]) -> None:
    """Runs the connector in this process until SIGTERM (drains) or SIGINT (ends at once). `read`: the token anew, for
    SIGHUP; raises ConfigError."""
    import uvloop

    take_names_as_they_are()

    async def main() -> None:
        stop, now = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def at_once() -> None:
            now.set()
            stop.set()

        loop.add_signal_handler(signal.SIGTERM, lambda: now.set() if stop.is_set() else stop.set())
        loop.add_signal_handler(signal.SIGINT, at_once)
        connector = Connector(config, token)
        logs.on_hangup(loop, at_once, lambda: connector.reread(read))
        async with AsyncExitStack() as stack:
            stack.enter_context(trimmed())
            stack.enter_context(in_batches())
            if config.metrics is not None:
                state = Health(lambda: ready(connector), lambda: families(connector))
                await stack.enter_async_context(serve_health(config.metrics, state))
            keep_only(("CAP_NET_RAW",))  # for ping, where the host allows no unprivileged ICMP sockets
            connector.start()
            notify("READY=1")
            await life(connector, stop, now)

    async def life(connector: Connector, stop: asyncio.Event, now: asyncio.Event) -> None:
        try:
            await stop.wait()
            notify("STOPPING=1")
            if not now.is_set():
                drained = asyncio.create_task(connector.drain(config.drain))
                hurried = asyncio.create_task(now.wait())
                await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
                drained.cancel()
                hurried.cancel()
        finally:
            await connector.close()

    try:
        uvloop.run(main())
    except DeniedError as error:
        raise ConfigError(str(error)) from None
