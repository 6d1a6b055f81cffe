"""Torture of the endpoint: clients behind NATs that forget, move and lose packets; every request is answered."""

from __future__ import annotations

import random

import pytest

from tests.certificates import SERVER_NAME, Shown
from tests.sim.conftest import PAIRINGS, SEEDS, engines_of
from tests.sim.network import Link, Nat, Network
from tests.sim.peers import Peer, Serving
from warren.fabric.core.engine import (
    ClientConfig,
    Closed,
    Connected,
    Connection,
    Engine,
    Event,
    Limits,
    Readable,
    ServerConfig,
    Writable,
)

REQUESTS = 25


@pytest.fixture(params=PAIRINGS)
def engines(request: pytest.FixtureRequest) -> tuple[Engine, Engine]:
    """The clients' and the server's. Skips pairings with native where that is not installed."""
    return engines_of(request.param)


class Answering:
    """Turns every request round."""

    def __init__(self) -> None:
        self.read: dict[tuple[Connection, int], bytearray] = {}
        self.owed: dict[tuple[Connection, int], bytes] = {}
        self.closed: list[Event] = []

    def event(self, connection: Connection, event: Event) -> None:
        """Reads; answers what has ended."""
        if isinstance(event, Readable):
            into = self.read.setdefault((connection, event.stream), bytearray())
            while data := connection.read(event.stream, 5_000):
                into += data
            if connection.finished(event.stream):
                self.owed[connection, event.stream] = bytes(reversed(into))
                self.push(connection, event.stream)
        elif isinstance(event, Writable):
            self.push(connection, event.stream)
        elif isinstance(event, Closed):
            self.closed.append(event)

    def push(self, connection: Connection, stream: int) -> None:
        """Writes what is taken; finishes."""
        data = self.owed[connection, stream]
        data = self.owed[connection, stream] = data[connection.write(stream, data) :]
        if not data:
            connection.finish(stream)


class Asking:
    """A client that asks one request after the other."""

    def __init__(self, rnd: random.Random) -> None:
        self.requests = [rnd.randbytes(rnd.choice([1, 300, 5_000, 40_000])) for _ in range(REQUESTS)]
        self.answers: list[bytes] = []
        self.open: tuple[int, bytearray] | None = None
        self.owed = b""

    def work(self, peer: Peer) -> None:
        """Asks the next one."""
        if self.open is None and peer.saw(Connected) and len(self.answers) < REQUESTS:
            stream = peer.live.open_stream()
            if stream is not None:
                self.open = (stream, bytearray())
                self.owed = self.requests[len(self.answers)]
                self.push(peer, stream)

    def push(self, peer: Peer, stream: int) -> None:
        """Writes what is taken; finishes."""
        self.owed = self.owed[peer.live.write(stream, self.owed) :]
        if not self.owed:
            peer.live.finish(stream)

    def event(self, peer: Peer, event: Event) -> None:
        """Reads the answer."""
        if isinstance(event, Writable):
            self.push(peer, event.stream)
        elif isinstance(event, Readable) and self.open is not None:
            stream, into = self.open
            assert event.stream == stream
            while data := peer.live.read(stream, 5_000):
                into += data
            if peer.live.finished(stream):
                self.answers.append(bytes(into))
                self.open = None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_clients_whose_addresses_change(seed: int, engines: tuple[Engine, Engine], shown: Shown) -> None:
    network = Network(seed + 5_000)
    rnd = random.Random(seed)
    # Without keep-alive a client that only waits for an answer never tells its new address, and nobody can reach it.
    limits = Limits(idle_timeout=120.0, keep_alive=1.0, size=1392, send_buffer=16_384)
    served = ServerConfig(("test/1",), shown.chain, shown.key, limits, retry=bool(seed % 2), half_open=4)
    answering = Answering()
    serving = Serving(network, network.host("203.0.113.9"), engines[1].endpoint(served, network.now), answering.event)
    peers: list[tuple[Peer, Asking]] = []
    for number in range(4):
        loss, delay = rnd.choice([0.0, 0.02, 0.1]), rnd.choice([0.005, 0.05])
        up, down = (Link(delay=delay, loss=loss, reorder=0.1, rate=500_000.0) for _ in range(2))
        host = network.host("10.0.0.5", up=up, down=down, nat=Nat(f"198.51.100.{number + 1}"))
        asking = Asking(rnd)
        peer = Peer(network, host, asking.event, header=b"")
        peer.work = lambda asking=asking, peer=peer: asking.work(peer)  # type: ignore[misc]
        peer.to = serving.socket.address
        peer.connection = engines[0].connect(ClientConfig("test/1", SERVER_NAME, shown.root, limits), network.now)
        peer.drain()
        peers.append((peer, asking))

    moves = 0

    def change() -> None:
        nonlocal moves
        moves += 1
        peer, _ = rnd.choice(peers)
        new = f"198.{60 + moves // 200}.{rnd.randrange(50)}.{1 + moves % 200}" if rnd.random() < 0.3 else None
        network.rebind(peer.socket.host, new)
        network.after(rnd.uniform(0.3, 2.0), change)

    # Nobody has to follow before a client knows that its handshake is confirmed (RFC 9000, section 9): until then it
    # probes with handshake packets, which the server does not look at any more.
    # (Five lost in a row, in a time-out that doubles, and it takes a minute.)
    assert network.run_until(lambda: all(asking.answers for _, asking in peers), 600.0)
    network.after(1.0, change)
    done = network.run_until(lambda: all(len(asking.answers) == REQUESTS for _, asking in peers), 3_000.0)
    assert done, [(len(asking.answers), peer.events[-1]) for peer, asking in peers]
    for peer, asking in peers:
        assert asking.answers == [request[::-1] for request in asking.requests]
        assert not peer.saw(Closed)
    # A first datagram that comes late, after the Retry that its twin got, begins a handshake that nobody ends.
    assert all(isinstance(event, Closed) and "handshake" in event.reason for event in answering.closed)
    assert len(serving.connections) <= 4 + served.half_open
