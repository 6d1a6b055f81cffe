"""Torture: does an engine keep every byte and keep going under loss, duplication, reordering? Its gate.

Each engine against itself and against the other, both ways. WARREN_SEEDS=N runs N seeds of each kind and pairing. What
is drawn from the seed is in the name that a failure prints.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.certificates import Shown
from tests.sim.conftest import PAIRINGS, SEEDS, engines_of
from tests.sim.network import Link, Network
from tests.sim.peers import Peer, connected, pair
from warren.fabric.core.engine import Closed, Engine, Event, Limits, PathChange, Readable, StreamOpened, Writable

VIRTUAL_LIMIT = 5_000.0
"""Seconds of virtual time: the idle time-out is below it, so a stall shows as an unfinished run."""


SIZES = (1444, 1392, 1224)


@pytest.fixture(params=PAIRINGS)
def engines(request: pytest.FixtureRequest) -> tuple[Engine, Engine]:
    """Client's and server's. Skips pairings with native where that is not installed."""
    return engines_of(request.param)


def harsh(network: Network) -> tuple[Link, Link, str]:
    """Both directions of an access link, as bad as the seed says."""
    rnd = network.random
    loss, duplicate = rnd.choice([0.0, 0.01, 0.05, 0.15]), rnd.choice([0.0, 0.02])
    reorder, delay = rnd.choice([0.0, 0.05, 0.3]), rnd.choice([0.0025, 0.025, 0.15])
    rate = rnd.choice([None, 250_000.0, 2_500_000.0])
    links = [Link(delay=delay / 2, loss=loss, duplicate=duplicate, reorder=reorder, rate=rate) for _ in range(2)]
    name = f"loss {loss} duplicate {duplicate} reorder {reorder} delay {delay} rate {rate}"
    return links[0], links[1], name


class Flow:
    """What an end has still to write on a stream, and what it has read."""

    def __init__(self, out: bytes = b"", *, ends: bool = False) -> None:
        self.out, self.at, self.ends, self.into = out, 0, ends, bytearray()

    def push(self, peer: Peer, stream: int) -> None:
        """Writes as much as is taken; finishes after the last byte."""
        while self.at < len(self.out):
            taken = peer.live.write(stream, self.out[self.at : self.at + 20_000])
            self.at += taken
            if not taken:
                return
        if self.ends:
            self.ends = False
            peer.live.finish(stream)


class EndingStreams:
    """The client opens streams, each with a blob; the server answers each with the blob turned round."""

    def __init__(self, blobs: list[bytes], at_once: int) -> None:
        self.blobs, self.at_once = blobs, at_once
        self.asked: dict[int, bytes] = {}
        self.flows: dict[tuple[Peer, int], Flow] = {}
        self.done: set[int] = set()
        self.client: Peer | None = None

    def opens(self) -> None:
        """Opens what may be open."""
        assert self.client is not None
        while len(self.asked) < len(self.blobs) and len(self.asked) - len(self.done) < self.at_once:
            stream = self.client.live.open_stream()
            if stream is None:
                return
            blob = self.asked[stream] = self.blobs[len(self.asked)]
            flow = self.flows[self.client, stream] = Flow(blob, ends=True)
            flow.push(self.client, stream)

    def event(self, peer: Peer, event: Event) -> None:
        """Reads, answers."""
        if isinstance(event, StreamOpened):
            self.flows[peer, event.stream] = Flow()
        elif isinstance(event, Writable):
            self.flows[peer, event.stream].push(peer, event.stream)
        elif isinstance(event, Readable):
            self.read(peer, event.stream)

    def read(self, peer: Peer, stream: int) -> None:
        """Takes all there is, in odd portions."""
        flow = self.flows[peer, stream]
        while data := peer.live.read(stream, 7_777):
            flow.into += data
        if peer.live.finished(stream):
            if peer is self.client:
                assert stream not in self.done, "ended twice"
                self.done.add(stream)
            else:
                flow.out, flow.ends = bytes(reversed(flow.into)), True
                flow.push(peer, stream)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_ending_streams(seed: int, engines: tuple[Engine, Engine], shown: Shown) -> None:
    network = Network(seed)
    up, down, name = harsh(network)
    rnd = random.Random(seed)
    blobs = [rnd.randbytes(rnd.choice([0, 1, 100, 5_000, 70_000, 200_000])) for _ in range(30)]
    app = EndingStreams(blobs, at_once=12)
    limits = Limits(
        idle_timeout=600.0,
        size=rnd.choice(SIZES),
        stream_window=128 << 10,
        connection_window=512 << 10,
        streams=8,
        send_buffer=64 << 10,
    )
    hosts = network.host("10.0.0.1", up=up, down=down), network.host("10.0.0.2")
    client, server = pair(network, engines, hosts, shown, limits, app.event)
    app.client = client
    client.work = app.opens
    finished = network.run_until(lambda: len(app.done) == len(blobs) or client.saw(Closed), VIRTUAL_LIMIT)
    assert finished, f"{name}: {len(app.done)} of {len(blobs)} streams ended"
    assert not client.saw(Closed), client.events[-1]
    for stream, blob in app.asked.items():
        assert bytes(app.flows[server, stream].into) == blob
        assert bytes(app.flows[client, stream].into) == blob[::-1]
    if engines[0].name == "aioquic":
        assert not client.live._streams, "records of streams that are over"  # type: ignore[attr-defined]


class LastingStreams:
    """Both ends write now and then on streams that stay open, and send datagrams beside them."""

    def __init__(self, rnd: random.Random, volume: int) -> None:
        self.rnd, self.volume = rnd, volume
        self.written = 0
        self.flows: dict[tuple[Peer, int], Flow] = {}
        self.streams: list[int] = []
        self.datagrams: Counter[str] = Counter()

    def begin(self, client: Peer) -> None:
        """Twenty streams, a few bytes on each, so that the server knows them."""
        for _ in range(20):
            stream = client.live.open_stream()
            assert stream is not None
            self.streams.append(stream)
            self.write(client, stream, 3)

    def write(self, peer: Peer, stream: int, size: int) -> None:
        """Some more bytes on a stream."""
        flow = self.flows.setdefault((peer, stream), Flow())
        flow.out += self.rnd.randbytes(size)
        self.written += size
        flow.push(peer, stream)

    def act(self, peer: Peer) -> None:
        """One of the things that an end may do."""
        for _ in range(3):
            stream = self.rnd.choice(self.streams)
            if self.written < self.volume and (peer, stream) in self.flows:
                self.write(peer, stream, self.rnd.choice([1, 50, 1_400, 30_000]))
        if self.rnd.random() < 0.5:
            room = peer.live.datagram_room()
            size = self.rnd.choice([0, 1, 500, room])
            sent = peer.live.send_datagram(b"d" * size)
            self.datagrams["sent" if sent else "refused"] += 1

    def event(self, peer: Peer, event: Event) -> None:
        """Reads everything at once."""
        if isinstance(event, StreamOpened):
            self.flows[peer, event.stream] = Flow()
        elif isinstance(event, Writable):
            self.flows[peer, event.stream].push(peer, event.stream)
        elif isinstance(event, Readable):
            while data := peer.live.read(event.stream, 1 << 20):
                self.flows[peer, event.stream].into += data
        while peer.live.read_datagram() is not None:
            self.datagrams["received"] += 1

    def complete(self, one: Peer, other: Peer) -> bool:
        """Whether everything was written and has arrived; a stream that the other end does not know yet has not."""
        return self.written >= self.volume and all(
            (b, stream) in self.flows and len(self.flows[a, stream].out) == len(self.flows[b, stream].into)
            for a, b in ((one, other), (other, one))
            for stream in self.streams
            if (a, stream) in self.flows
        )


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("paths", ["steady", "changing"])
def test_lasting_streams_beside_datagrams(seed: int, paths: str, engines: tuple[Engine, Engine], shown: Shown) -> None:
    network = Network(seed + 1_000)
    up, down, name = harsh(network)
    rnd = random.Random(seed)
    app = LastingStreams(rnd, volume=1_000_000)
    limits = Limits(
        idle_timeout=600.0,
        size=1444,
        stream_window=256 << 10,
        connection_window=1 << 20,
        send_buffer=96 << 10,
        datagrams=True,
        datagram_queue=16_384,
    )
    hosts = network.host("10.0.0.1", up=up, down=down), network.host("10.0.0.2")
    client, server = pair(network, engines, hosts, shown, limits, app.event)
    assert network.run_until(lambda: connected(client, server), 60.0), name
    app.begin(client)
    client.drain()

    def step() -> None:
        for peer in (client, server):
            app.act(peer)
            if paths == "changing" and rnd.random() < 0.03:
                peer.live.path_changed(network.now, rnd.choice(list(PathChange)))
                peer.live.resize(rnd.choice(SIZES))
            peer.drain()
        if app.written < app.volume:
            network.after(rnd.random() * up.delay * 2, step)

    step()
    finished = network.run_until(lambda: app.complete(client, server) or client.saw(Closed), VIRTUAL_LIMIT)
    assert finished and not client.saw(Closed), f"{name}: {app.written} written, {client.events[-1:]}"
    for stream in app.streams:
        for a, b in ((client, server), (server, client)):
            if (a, stream) in app.flows:
                assert app.flows[a, stream].out == bytes(app.flows[b, stream].into)
    # on native a size that has just shrunk costs the datagrams of a few round trips
    shrinks = paths == "changing" and "native" in (engines[0].name, engines[1].name)
    assert app.datagrams["received"] > app.datagrams["sent"] * (0.1 if shrinks else 0.3)
