"""The native engine's gate: torture native-native, and native-aioquic both ways. Skipped where it is not installed.

WARREN_SEEDS=N runs N seeds of each kind and pairing. What is drawn from the seed is in the name that a failure prints.
"""

from __future__ import annotations

import random

import pytest

from tests.certificates import Shown
from tests.sim.conftest import SEEDS
from tests.sim.network import Network
from tests.sim.peers import Peer, connected, pair
from tests.sim.test_torture_streams import VIRTUAL_LIMIT, EndingStreams, LastingStreams, harsh
from warren.fabric.core.engine import Closed, Engine, Limits, PathChange
from warren.fabric.engines.aioquic import AioquicEngine

pytest.importorskip("warren_quic", exc_type=ImportError).Connection  # noqa: B018  # a bare folder imports too

from warren.fabric.engines.native import NativeEngine  # noqa: E402  # only where it is installed

PAIRINGS = {
    "native-native": (NativeEngine, NativeEngine),
    "native-aioquic": (NativeEngine, AioquicEngine),
    "aioquic-native": (AioquicEngine, NativeEngine),
}
SIZES = (1444, 1392, 1224)


@pytest.fixture(params=PAIRINGS)
def engines(request: pytest.FixtureRequest) -> tuple[Engine, Engine]:
    """Client's and server's."""
    client, server = PAIRINGS[request.param]
    return client(), server()


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


def disturb(peer: Peer, rnd: random.Random) -> None:
    """Something happens to the path, or is said to have happened."""
    peer.live.path_changed(peer.network.now, rnd.choice(list(PathChange)))
    peer.live.resize(rnd.choice(SIZES))


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
                disturb(peer, rnd)
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
    # a size that has just shrunk costs the datagrams of a few round trips
    assert app.datagrams["received"] > app.datagrams["sent"] * (0.3 if paths == "steady" else 0.1)
