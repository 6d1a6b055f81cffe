"""The native engine's adapter: the face's classes, seconds and errors. Skipped where the module is not installed."""

from __future__ import annotations

import dataclasses

import pytest

from tests.certificates import SERVER_NAME, certificates
from tests.sim.network import Link, Network
from tests.sim.peers import HEADER, Peer, connected, pair
from warren.fabric.core.engine import (
    ClientConfig,
    Closed,
    Connected,
    DatagramsReceived,
    Limits,
    PathChange,
    Readable,
    ServerConfig,
    Statistics,
    StreamOpened,
    StreamReset,
    StreamStopped,
)
from warren.fabric.core.errors import ConfigError

pytest.importorskip("warren_quic", exc_type=ImportError).Connection  # noqa: B018  # a bare folder imports too

from warren.fabric.engines.native import NativeConnection, NativeEndpoint, NativeEngine  # noqa: E402  # only then

SHOWN = certificates()
LIMITS = Limits(size=1444, datagrams=True)
CLIENT = ClientConfig("test/1", SERVER_NAME, SHOWN.root, LIMITS)
SERVER = ServerConfig(("test/1",), SHOWN.chain, SHOWN.key, LIMITS)
ENGINE = NativeEngine()


def joined() -> tuple[Network, Peer, Peer]:
    """A client and a server whose handshake is over."""
    network = Network(1)
    hosts = network.host("10.0.0.1"), network.host("10.0.0.2")
    client, server = pair(network, (ENGINE, ENGINE), hosts, SHOWN, LIMITS)
    assert network.run_until(lambda: connected(client, server), 5.0)
    return network, client, server


def test_both_ends_connect_and_the_client_has_the_certificate() -> None:
    _, client, server = joined()
    seen = client.events[0]
    assert isinstance(seen, Connected) and seen.alpn == "test/1" and seen.certificate
    assert server.events == [Connected("test/1", None)]


def test_streams_and_datagrams_become_the_faces_events() -> None:
    network, client, server = joined()
    streams = [client.live.open_stream() for _ in range(3)]
    assert None not in streams
    plain, reset, stopped = (stream for stream in streams if stream is not None)
    for stream in (plain, reset, stopped):
        assert client.live.write(stream, b"abc") == 3
    client.live.finish(plain)
    assert client.live.send_datagram(b"beside")
    client.drain()
    network.run(network.now + 1.0)
    expected = [StreamOpened(plain, True), Readable(plain), DatagramsReceived()]
    assert all(event in server.events for event in expected)
    assert server.live.read(plain, 9) == b"abc" and server.live.finished(plain)
    assert server.live.read_datagram() == b"beside"
    client.live.reset(reset, 7)
    server.live.stop(stopped, 9)
    client.drain()
    server.drain()
    network.run(network.now + 1.0)
    assert StreamReset(reset, 7) in server.events and StreamStopped(stopped, 9) in client.events
    assert not server.live.finished(reset)
    client.live.close(5, "enough", network.now)
    client.drain()
    network.run(network.now + 1.0)
    assert client.events[-1] == Closed(5, "enough", True) and server.events[-1] == Closed(5, "enough", False)


def test_figures_are_in_seconds() -> None:
    network, client, _ = joined()
    figures = client.live.statistics()
    assert isinstance(figures, Statistics) and 0.009 < figures.round_trip < 0.1 and figures.phase == "startup"
    assert 0.01 < client.live.pto() < 0.5 and client.live.sampled()
    due = client.live.timer()
    assert due is None or network.now <= due < network.now + 60.0


def test_a_batch_has_the_header_in_front_of_every_datagram() -> None:
    network, client, server = joined()
    network.run(network.now + 1.0)
    stream = client.live.open_stream(bidirectional=False)
    assert stream is not None
    assert client.live.write(stream, bytes(10_000)) == 10_000
    batch = client.live.transmit(network.now, HEADER)
    assert batch is not None and batch.segments > 1 and batch.stride == 1444 + len(HEADER)
    whole = b"".join(batch.parts)
    assert {whole[at : at + 8] for at in range(0, len(whole), batch.stride)} == {HEADER}
    mixed = bytearray(whole)
    mixed[batch.stride : batch.stride + 8] = b"\x01ANOTHER"
    got = server.live.receive(mixed, batch.stride, HEADER, network.now)
    assert got.authenticated and got.newest and list(got.foreign) == [(batch.stride, 2 * batch.stride)]


def test_paths_are_told_and_sizes_set() -> None:
    network, client, _ = joined()
    for kind in PathChange:
        client.live.path_changed(network.now, kind)
        assert client.live.transmit(network.now, HEADER) is not None, "a probe"
        assert client.live.in_flight()
    before = client.live.datagram_room()
    client.live.resize(1224)
    assert client.live.datagram_room() == before - 220 and client.live.large_lost() == 0


def test_a_probe_after_a_silence_is_no_burst() -> None:
    network, client, _ = joined()
    stream = client.live.open_stream()
    assert stream is not None
    client.live.write(stream, b"lost")
    while client.live.transmit(network.now, HEADER):
        pass
    asleep = network.now + 5.0
    client.live.probe(asleep)
    sent = 0
    while (batch := client.live.transmit(asleep, HEADER)) is not None:
        sent += batch.segments
    assert 1 <= sent <= 3


def test_only_an_initial_packet_makes_a_server_connection() -> None:
    first = ENGINE.connect(CLIENT, 0.0).transmit(0.0)
    assert first is not None
    data = bytes(first.parts[0])[: first.stride]
    assert isinstance(ENGINE.accept(SERVER, data, 0.0), NativeConnection)
    for no in (b"", b"\xc0", data[:1199], b"\x40" + data[1:], data[:1] + b"\x00\x00\x00\x02" + data[5:]):
        assert ENGINE.accept(SERVER, no, 0.0) is None


@pytest.mark.parametrize(
    "wrong",
    [{"server_name": "no name!"}, {"root": b"nothing"}, {"alpn": ""}, {"limits": Limits(size=100)}],
)
def test_a_wrong_client_configuration_is_one_line(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        ENGINE.connect(dataclasses.replace(CLIENT, **wrong), 0.0)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_wrong_server_configuration_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError):
        ENGINE.endpoint(dataclasses.replace(SERVER, key=b"nothing"), 0.0)


def test_an_endpoint_on_the_simulated_network() -> None:
    network = Network(2)
    serving = network.host("10.0.0.9", up=Link(delay=0.01))
    endpoint = ENGINE.endpoint(SERVER, network.now)
    assert isinstance(endpoint, NativeEndpoint)
    got: dict[str, str] = {}

    def drain() -> None:
        while (found := endpoint.active()) is not None:
            while (event := found.poll_event()) is not None:
                if isinstance(event, Readable):
                    text = found.read(event.stream, 100).decode()
                    got[text] = endpoint.address(found)[0]
                    found.write(event.stream, b"answer to " + text.encode())
                    endpoint.touch(found)
        while (made := endpoint.transmit(network.now)) is not None:
            socket.send_batch(made[1].parts, made[1].stride, made[0])
        alarm.arm(endpoint.timer())

    def ring() -> None:
        endpoint.handle_timer(network.now)
        drain()

    def received(data: bytes, source: tuple[str, int]) -> None:
        endpoint.receive(data, 0, source, network.now)
        drain()

    alarm = network.alarm(ring)
    socket = serving.bind(443, received)
    peers = [Plain(network, f"10.0.0.{n}", socket.address) for n in (1, 2, 3)]
    network.run(network.now + 2.0)
    assert got == {f"from 10.0.0.{n}": f"10.0.0.{n}" for n in (1, 2, 3)}
    assert [peer.answer for peer in peers] == [f"answer to from 10.0.0.{n}".encode() for n in (1, 2, 3)]
    assert sum(1 for _ in iter(endpoint.accept, None)) == 3


class Plain:
    """A client without a header: says where it is, keeps the answer."""

    def __init__(self, network: Network, address: str, to: tuple[str, int]) -> None:
        self.network, self.address, self.to, self.answer = network, address, to, b""
        self.connection = ENGINE.connect(CLIENT, network.now)
        self.socket = network.host(address).bind(1000, self.received)
        self.alarm = network.alarm(self.ring)
        self.drain()

    def received(self, data: bytes, source: tuple[str, int]) -> None:
        """A datagram."""
        self.connection.receive(data, 0, b"", self.network.now)
        self.drain()

    def ring(self) -> None:
        """The timer."""
        self.connection.handle_timer(self.network.now)
        self.drain()

    def drain(self) -> None:
        """The contract of every call."""
        while (event := self.connection.poll_event()) is not None:
            if isinstance(event, Connected):
                stream = self.connection.open_stream()
                assert stream is not None
                self.connection.write(stream, f"from {self.address}".encode())
            elif isinstance(event, Readable):
                self.answer += self.connection.read(event.stream, 100)
        while (batch := self.connection.transmit(self.network.now)) is not None:
            self.socket.send_batch(batch.parts, batch.stride, self.to)
        self.alarm.arm(self.connection.timer())
