"""What happens to a path, and how soon an engine goes on after it is told."""

from __future__ import annotations

import math

import pytest

from tests.certificates import Shown
from tests.sim.network import Link, Network
from tests.sim.peers import Peer, connected, pair
from warren.fabric.core.engine import Event, Limits, PathChange, Readable
from warren.fabric.engines import engine

LIMITS = Limits(idle_timeout=600.0, size=1444, datagrams=True, send_buffer=512 << 10)


class Bulk:
    """The server reads what the client writes without end; when bytes came."""

    def __init__(self, network: Network) -> None:
        self.network, self.received, self.arrivals = network, 0, [network.now]
        self.stream: int | None = None
        self.stopped = False

    def event(self, peer: Peer, event: Event) -> None:
        """Reads."""
        if isinstance(event, Readable):
            while data := peer.live.read(event.stream, 1 << 20):
                self.received += len(data)
                self.arrivals.append(self.network.now)

    def write(self, client: Peer) -> None:
        """Keeps the send buffer full."""
        if self.stream is not None and not self.stopped:
            while client.live.write(self.stream, bytes(32_768)) == 32_768:
                pass

    def first_after(self, at: float) -> float:
        """Seconds from `at` to the first byte after it."""
        return next((arrival for arrival in self.arrivals if arrival >= at), math.inf) - at


def bulk(network: Network, shown: Shown, rate: float = 250_000.0, delay: float = 0.005) -> tuple[Bulk, Peer, Peer]:
    """A connection under bulk, two seconds old."""
    app = Bulk(network)
    up, down = Link(rate=rate, delay=delay), Link(rate=rate, delay=delay)
    hosts = network.host("10.0.0.1", up=up, down=down), network.host("10.0.0.2")
    client, server = pair(network, (engine(), engine()), hosts, shown, LIMITS, app.event)
    assert network.run_until(lambda: connected(client, server), 5.0)
    app.stream = client.live.open_stream()
    client.work = lambda: app.write(client)
    client.drain()
    network.run(network.now + 2.0)
    assert app.received > rate * 0.5
    return app, client, server


# MOVED takes all in flight for lost, and sends again first what the server has already.
@pytest.mark.parametrize(
    ("kind", "soon"), [(PathChange.RESUMED, 0.1), (PathChange.REBOUND, 0.1), (PathChange.MOVED, 0.3)]
)
def test_goes_on_soon_after_ten_seconds_of_silence(kind: PathChange, soon: float, shown: Shown) -> None:
    network = Network(1)
    app, client, _ = bulk(network, shown)
    client.socket.host.blackout()
    network.run(network.now + 10.0)
    client.socket.host.restore()
    back = network.now
    client.live.path_changed(network.now, kind)
    client.drain()
    network.run(back + 1.0)
    assert app.first_after(back + 1e-9) < soon
    network.run(back + 5.0)
    assert app.received > 3 * 250_000


def test_what_was_sent_into_a_silence_costs_no_rate_after_it(shown: Shown) -> None:
    """Its loss is no congestion: told that the way works again, a sender begins no slower than a new connection."""
    network = Network(9)
    app, client, _ = bulk(network, shown, rate=1_250_000.0, delay=0.02)
    client.socket.host.blackout()
    network.run(network.now + 10.0)
    client.socket.host.restore()
    received = app.received
    client.live.path_changed(network.now, PathChange.RESUMED)
    client.drain()
    network.run(network.now + 0.4)
    assert app.received - received > 150_000  # of 400,000


def test_a_handshake_goes_on_soon_after_a_silence(shown: Shown) -> None:
    network = Network(8)
    hosts = network.host("10.0.0.1"), network.host("10.0.0.2")
    network.partition(*hosts)
    client, server = pair(network, (engine(), engine()), hosts, shown, LIMITS)
    network.run(network.now + 8.0)
    network.heal()
    client.live.path_changed(network.now, PathChange.MOVED)
    client.drain()
    assert network.run_until(lambda: connected(client, server), 0.1)


def test_untold_it_waits_for_its_own_backed_off_probe(shown: Shown) -> None:
    network = Network(1)
    app, client, _ = bulk(network, shown)
    client.socket.host.blackout()
    network.run(network.now + 10.0)
    client.socket.host.restore()
    back = network.now
    network.run(back + 30.0)
    assert app.first_after(back) > 0.5


def test_moved_starts_window_and_round_trip_anew(shown: Shown) -> None:
    network = Network(2)
    app, client, _ = bulk(network, shown, rate=1_250_000.0)
    before = client.live.statistics()
    assert before.round_trip > 0 and client.live.sampled() and client.live.in_flight()
    events = before.congestion_events
    client.live.path_changed(network.now, PathChange.MOVED)
    assert not client.live.sampled()
    after = client.live.statistics()
    assert after.congestion_events == events
    if engine().name == "aioquic":
        assert after.in_flight == 0 and after.window == 10 * 1444 and after.phase == "slow start"
    client.drain()
    received = app.received
    network.run(network.now + 1.0)
    assert client.live.sampled() and app.received > received + 100_000
    assert client.live.statistics().in_flight >= 0


def test_rebound_changes_nothing_but_the_probe(shown: Shown) -> None:
    network = Network(3)
    _, client, _ = bulk(network, shown)
    before = client.live.statistics()
    client.live.path_changed(network.now, PathChange.REBOUND)
    after = client.live.statistics()
    assert after.window == before.window and after.round_trip == before.round_trip
    batch = client.live.transmit(network.now)
    assert batch is not None and sum(map(len, batch.parts)) > 100, "a probe that carries data"


def test_black_hole_is_reported_and_ends_with_a_smaller_size(shown: Shown) -> None:
    network = Network(4)
    app, client, server = bulk(network, shown)
    assert client.live.large_lost() == 0
    client.socket.host.up.mtu = 1300
    assert network.run_until(lambda: client.live.large_lost() >= 6, 10.0)
    client.live.resize(1224)
    client.live.probe(network.now)
    client.drain()
    told = network.now
    assert client.live.large_lost() == 0
    network.run(told + 5.0)
    assert app.first_after(told) < (0.5 if engine().name == "aioquic" else 2.0)  # native: a few losses more
    assert client.live.large_lost() == 0
    assert server.live.large_lost() == 0


@pytest.mark.skipif(engine().name == "native", reason="its window is not full here, so no datagram waits")
def test_resize_drops_queued_datagrams_that_no_longer_fit(shown: Shown) -> None:
    network = Network(5)
    app, client, server = bulk(network, shown)
    app.stopped = True
    client.socket.host.blackout()
    network.run(network.now + 1.0)  # the window is full, datagrams stay in the queue
    large, small = bytes(client.live.datagram_room()), b"s" * 400
    assert client.live.send_datagram(large)
    assert client.live.send_datagram(small)
    client.live.resize(1224)
    assert 1224 - 40 <= client.live.datagram_room() <= 1224 - 30
    assert not client.live.send_datagram(large)
    client.socket.host.restore()
    client.live.path_changed(network.now, PathChange.RESUMED)
    client.drain()
    arrived: list[bytes] = []

    def read() -> bool:
        while (data := server.live.read_datagram()) is not None:
            arrived.append(data)
        return bool(arrived)

    assert network.run_until(read, 3.0)
    assert arrived == [small]


def test_keep_alive_keeps_an_idle_connection(shown: Shown) -> None:
    network = Network(6)
    limits = Limits(idle_timeout=10.0, keep_alive=3.0)
    hosts = network.host("10.0.0.1"), network.host("10.0.0.2")
    client, server = pair(network, (engine(), engine()), hosts, shown, limits)
    network.run(network.now + 60.0)
    assert connected(client, server) and len(client.events) == len(server.events) == 1
    network.partition(*hosts)
    network.run(network.now + 30.0)
    assert len(client.events) == 2 and "idle" in client.events[-1].reason  # type: ignore[union-attr]


def test_no_datagram_clears_the_fixed_bit(shown: Shown) -> None:
    network = Network(7)
    firsts: set[int] = set()
    network.trace = lambda now, source, to, data: firsts.add(data[8] & 0xC0)
    bulk(network, shown)
    assert firsts <= {0x40, 0xC0}
