"""What of an agent speaks to edges and connectors: nodes, peer connections, standby circuits; no capture, no host."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.agent.attachments import Attachments
from warren.agent.config import HOLD
from warren.agent.peers import Peers
from warren.agent.standby import Standbys
from warren.agent.switchboard import Switchboard
from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.aio.node import Identity, Node
from warren.fabric.core.engine import Engine
from warren.fabric.core.messages.peer import LABEL as PEER_LABEL
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import keys, proof
from warren.fabric.identity.statements import EdgeList


class Told:
    """Starts and ends it, and passes on what nodes tell, as `agent.app.Agent` does."""

    nodes: list[Node]
    peers: Peers
    standbys: Standbys

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        self.standbys.start()

    async def close(self) -> None:
        self.standbys.close()
        self.peers.close()
        for node in self.nodes:
            await node.close()

    def forgotten(self, circuit_socket: CircuitSocket) -> None:
        self.peers.renew(circuit_socket)

    def dropped(self, circuit: bytes, circuit_socket: CircuitSocket) -> None:
        path = circuit_socket.path(circuit)
        if path is not None:
            self.peers.dropped(path, circuit)

    def away(self, circuit: bytes, circuit_socket: CircuitSocket) -> None:
        path = circuit_socket.path(circuit)
        if path is not None:
            self.peers.away(path, circuit)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *words: None


class AgentSide(Told):
    """Put together as `agent.app.Agent` does it."""

    def __init__(
        self, network: bytes, edges: EdgeList, key: Ed25519PrivateKey, engine: Engine, hold: float = HOLD
    ) -> None:
        """`network`: DER of the network certificate. `key`: the device's."""

        def sign(label: bytes, challenge: bytes, leaf: bytes) -> bytes:
            return proof.sign(key, label, challenge, leaf)

        public = keys.public(key)
        identity = Identity("agent", public, sign, network)
        self.attachments = Attachments(
            "agent",
            edges,
            lambda edge: Node(engine, identity, edge, self),
            self._leaving,
            lambda: (state.tunnel for state in self.peers.states()),
        )
        self.switchboard = Switchboard("agent", lambda: self.nodes, lambda: edges, self.attachments.reach)
        board = self.switchboard
        self.peers = Peers(engine, network, lambda c, leaf: (public, sign(PEER_LABEL, c, leaf)), board.for_tunnel, hold)
        self.standbys = Standbys(self.peers, board.nodes_for)

    @property
    def nodes(self) -> list[Node]:  # type: ignore[override]
        return self.attachments.nodes

    def start(self) -> None:
        self.attachments.start()
        self.standbys.start()

    # ---- what nodes tell ----

    def _leaving(self, node: Node) -> None:
        for circuit_socket in node.sockets:
            self.peers.renew(circuit_socket)

    def connected(self) -> None:
        self.attachments.connected()

    def disconnected(self, reason: Reason, detail: str) -> None:
        if reason is Reason.DEVICE_UNKNOWN:
            self.peers.end_all(reason)

    def silent(self, node: Node) -> None:
        self.switchboard.avoid(node)
        if self.switchboard.others(node):
            self.peers.leave(node.sockets, silent=node.state == "connected")
