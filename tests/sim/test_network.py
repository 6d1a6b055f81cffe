"""The simulated network itself: what it promises to the tests above it."""

from __future__ import annotations

import pytest

from tests.sim.network import Address, Link, Nat, Network


class Ends:
    """A client behind what is given, a server, and what each of them got."""

    def __init__(self, seed: int = 1, *, up: Link | None = None, nat: Nat | None = None) -> None:
        self.net = Network(seed)
        self.lap = self.net.host("10.1.0.5", up=up, nat=nat)
        self.srv = self.net.host("203.0.113.9")
        self.at_server: list[tuple[float, bytes, Address]] = []
        self.at_client: list[bytes] = []
        self.client = self.lap.bind(4_000, lambda data, source: self.at_client.append(data))
        self.server = self.srv.bind(443, lambda data, source: self.at_server.append((self.net.now, data, source)))

    def send(self, count: int = 1, size: int = 100) -> None:
        for number in range(count):
            self.client.send(number.to_bytes(4, "big").ljust(size, b"."), self.server.address)

    def run(self, seconds: float = 10.0) -> None:
        self.net.run(self.net.now + seconds)


def test_delay_and_addresses() -> None:
    ends = Ends()
    ends.send()
    ends.run()
    ((at, data, source),) = ends.at_server
    assert at == pytest.approx(1000.01) and len(data) == 100 and source == ("10.1.0.5", 4_000)
    assert ends.net.now == 1010.0


def test_the_same_seed_replays_and_another_does_not() -> None:
    def run(seed: int) -> list[tuple[float, bytes, Address]]:
        ends = Ends(seed, up=Link(loss=0.2, duplicate=0.1, reorder=0.3, jitter=0.01))
        ends.send(200)
        ends.run()
        return ends.at_server

    assert run(1) == run(1) != run(2)


def test_loss_duplication_and_reordering_happen() -> None:
    ends = Ends(up=Link(loss=0.2, duplicate=0.1, reorder=0.3))
    ends.send(1_000)
    ends.run()
    numbers = [int.from_bytes(data[:4], "big") for _, data, _ in ends.at_server]
    assert 150 < ends.net.lost["loss"] < 250
    assert len(numbers) > len(set(numbers)) and numbers != sorted(numbers)


def test_rate_and_queue() -> None:
    ends = Ends(up=Link(delay=0.0, rate=128_000.0, queue=0.1))
    ends.send(1_000, size=100)  # 128 bytes with headers: a millisecond each
    ends.run()
    assert len(ends.at_server) == 101 and ends.net.lost["queue"] == 899
    assert ends.at_server[-1][0] == pytest.approx(1000.0 + 0.101 + 0.005)


def test_mtu_blackout_and_partitions() -> None:
    ends = Ends()
    ends.lap.up.mtu = 1_000
    ends.send(size=973)
    ends.send(size=972)
    ends.run()
    ends.lap.blackout(down=False)
    ends.send()
    ends.run()
    ends.lap.restore()
    ends.net.cut(ends.lap, ends.srv)
    ends.send()
    ends.server.send(b"back", ends.client.address)
    ends.run()
    ends.net.heal()
    ends.send()
    ends.run()
    assert len(ends.at_server) == 2 and ends.at_client == [b"back"]
    assert ends.net.lost == {"mtu": 1, "link": 1, "partition": 1}


def test_a_nat_maps_filters_forgets_and_rebinds() -> None:
    nat = Nat("198.51.100.1", idle=30.0)
    ends = Ends(nat=nat)
    other = ends.srv.bind(444, lambda data, source: None)
    ends.send()
    ends.run(1)
    source = ends.at_server[-1][2]
    assert source == ("198.51.100.1", 20_000)
    other.send(b"stranger", source)
    ends.server.send(b"answer", source)
    ends.run(1)
    assert ends.at_client == [b"answer"] and ends.net.lost["nat"] == 1
    ends.client.send(b"x", other.address)
    ends.run(1)
    assert nat.next_port == 20_002, "symmetric: a mapping for each destination"
    ends.run(40)
    ends.server.send(b"too late", source)
    ends.run(1)
    assert ends.at_client == [b"answer"]
    ends.send()
    ends.run(1)
    ends.net.rebind(ends.lap, "198.51.100.77")
    ends.send()
    ends.run(1)
    assert [seen[2] for seen in ends.at_server[1:]] == [("198.51.100.1", 20_002), ("198.51.100.77", 20_003)]
    ends.server.send(b"found", ends.at_server[-1][2])
    ends.run(1)
    assert ends.at_client[-1] == b"found"


def test_a_full_cone_lets_nobody_in_who_was_not_sent_to_but_keeps_one_port() -> None:
    ends = Ends(nat=Nat("198.51.100.1", symmetric=False))
    other = ends.srv.bind(444, lambda data, source: ends.at_server.append((0.0, data, source)))
    ends.send()
    ends.client.send(b"x", other.address)
    ends.run()
    assert len({source for _, _, source in ends.at_server}) == 1


def test_a_host_that_moves_is_reached_at_its_new_address() -> None:
    ends = Ends()
    ends.lap.move("10.2.0.1")
    ends.send()
    ends.run()
    assert ends.at_server[-1][2] == ("10.2.0.1", 4_000)
    ends.server.send(b"old", ("10.1.0.5", 4_000))
    ends.server.send(b"new", ("10.2.0.1", 4_000))
    ends.run()
    assert ends.at_client == [b"new"] and ends.net.lost["host"] == 1


def test_an_alarm_rings_once_at_the_last_time_that_was_set() -> None:
    net = Network()
    rung: list[float] = []
    alarm = net.alarm(lambda: rung.append(net.now))
    alarm.arm(1005.0)
    alarm.arm(1003.0)
    alarm.arm(1004.0)
    net.run(1010.0)
    assert rung == [1004.0]
    alarm.arm(1011.0)
    alarm.arm(None)
    assert not net.run_until(lambda: len(rung) > 1, 5.0)


def test_a_batch_is_split_into_segments() -> None:
    ends = Ends()
    ends.client.send_batch([b"h", b"12345", b"h", b"12345", b"h", b"1"], 6, ends.server.address)
    ends.run()
    assert [data for _, data, _ in ends.at_server] == [b"h12345", b"h12345", b"h1"]
