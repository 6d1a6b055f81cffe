"""An AgentPeer and a ConnectorPeer on real engines, their datagrams carried by hand under a virtual clock."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from warren.fabric.core.agent_peer import AgentPeer
from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.credit import Budget
from warren.fabric.core.engine import ClientConfig, Connection, Limits, ServerConfig
from warren.fabric.core.messages.peer import LABEL, Open, Prove
from warren.fabric.core.peer import PeerEvent
from warren.fabric.core.reasons import Reason
from warren.fabric.engines import engine
from warren.fabric.identity import certificates, keys, proof

HEADER = b"\x08circuit"
TUNNEL = "0123456789abcdef0123"
LIMITS = Limits(idle_timeout=900.0, streams=256, connection_window=256 << 20)


@dataclass
class Pair:
    """Both ends; `run()` carries datagrams until nothing moves (`delay` seconds each way, `loss` of them lost)."""

    seed: int = 0
    delay: float = 0.01
    loss: float = 0.0
    device_lies: bool = False
    now: float = 1000.0
    agent_events: list[PeerEvent] = field(default_factory=list)
    connector_events: list[PeerEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.engine = engine()
        ca_key, leaf_key, self.device = keys.generate(), keys.generate(), keys.generate()
        authority = certificates.make_tunnel_authority(ca_key, TUNNEL)
        self.leaf = certificates.make_connector(ca_key, authority, TUNNEL, keys.public(leaf_key))
        client = ClientConfig("warren-peer/1", certificates.tunnel_name(TUNNEL), certificates.pem(authority), LIMITS)
        self.server = ServerConfig(("warren-peer/1",), certificates.pem(self.leaf), keys.private_pem(leaf_key), LIMITS)
        self.peer_id = self.random.randbytes(16)
        self.agent = AgentPeer(self.engine.connect(client, self.now), self.now, Budget(), self.peer_id, self._sign)
        self.connector: ConnectorPeer | None = None
        self._wire: deque[tuple[float, bool, bytes]] = deque()

    def _sign(self, challenge: bytes, leaf: bytes) -> tuple[bytes, bytes]:
        key = keys.generate() if self.device_lies else self.device
        return keys.public(self.device), proof.sign(key, LABEL, challenge, leaf)

    def _prove(self, said: Prove, challenge: bytes) -> Reason | None:
        signed = proof_holds(said, challenge, self.leaf)
        return None if signed and said.peer == self.peer_id else Reason.BAD_PROOF

    @property
    def other(self) -> ConnectorPeer:
        assert self.connector is not None
        return self.connector

    def step(self) -> bool:
        """Drains both ends and carries one datagram; whether anything moved."""
        self._drain()
        if not self._wire:
            timers = [t for peer in (self.agent, self.connector) if peer and (t := peer.connection.timer()) is not None]
            soon = min(timers, default=None)
            if soon is None or soon > self.now + 3.0:
                return False
            self.now = max(self.now, soon)
            for peer in (self.agent, self.connector):
                if peer and (at := peer.connection.timer()) is not None and at <= self.now:
                    peer.connection.handle_timer(self.now)
            self._drain()
            return True
        at, to_connector, data = self._wire.popleft()
        self.now = max(self.now, at)
        if to_connector:
            if self.connector is None:
                connection = self.engine.accept(self.server, data[len(HEADER) :], self.now)
                assert connection is not None
                greeting = self.random.randbytes(32), self.random.randbytes(16)
                self.connector = ConnectorPeer(connection, self.now, Budget(), greeting, self._prove)
            self.connector.connection.receive(data, 0, HEADER, self.now)
        else:
            self.agent.connection.receive(data, 0, HEADER, self.now)
        return True

    def run(self, steps: int = 200_000) -> None:
        for _ in range(steps):
            if not self.step():
                return
        raise AssertionError("it never comes to rest")

    def _drain(self) -> None:
        self.agent.handle_connection(self.now)
        while (event := self.agent.poll_event()) is not None:
            self.agent_events.append(event)
        self._send(self.agent.connection, True)
        if self.connector is not None:
            self.connector.handle_connection(self.now)
            while (event := self.connector.poll_event()) is not None:
                self.connector_events.append(event)
            self._send(self.connector.connection, False)

    def _send(self, connection: Connection, to_connector: bool) -> None:
        while (batch := connection.transmit(self.now, HEADER)) is not None:
            data = b"".join(batch.parts)
            for start in range(0, len(data), batch.stride):
                if self.random.random() >= self.loss:
                    self._wire.append((self.now + self.delay, to_connector, data[start : start + batch.stride]))

    def open(self, port: int = 80) -> bytes:
        """Asks for a flow; its id."""
        flow_id = self.random.randbytes(16)
        message = Open(flow_id, b"grant", "tcp", port, address="10.0.0.1")
        assert self.agent.open(flow_id, b"grant", message) is not None
        return flow_id


def proof_holds(said: Prove, challenge: bytes, leaf: bytes) -> bool:
    from warren.fabric.core.errors import DeniedError

    try:
        proof.verify(said.key, said.signature, LABEL, challenge, leaf)
    except DeniedError:
        return False
    return True
