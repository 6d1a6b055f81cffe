"""The face `Connection`: streams, datagrams, bounds, handshake, ends."""

from __future__ import annotations

import pytest
from cryptography import x509

from tests.certificates import certificates
from tests.unit.fabric.engines.wire import HEADER, LIMITS, SHOWN, Wire, segments
from warren.fabric.core.engine import (
    ClientConfig,
    Closed,
    Connected,
    DatagramsReceived,
    Limits,
    Readable,
    ServerConfig,
    StreamOpened,
    StreamReset,
    StreamStopped,
    Writable,
)
from warren.fabric.core.errors import ConfigError
from warren.fabric.engines import engine

pytestmark = pytest.mark.usefixtures("on")
aioquic_only = pytest.mark.parametrize("on", ["aioquic"], indirect=True)
"""For what is the adapter's own: its bounds to the byte, its records."""

# ---- handshake


def test_both_ends_connect_and_the_client_gets_the_leaf() -> None:
    wire = Wire()
    (client,) = wire.told(wire.client, Connected)
    (server,) = wire.told(wire.server, Connected)
    assert isinstance(client, Connected) and client.certificate is not None
    assert x509.load_der_x509_certificate(client.certificate) == x509.load_pem_x509_certificate(SHOWN.chain)
    assert client.alpn == "test/1"
    assert server == Connected("test/1", None)


@aioquic_only
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shown": certificates(ca_leaf=True)}, "CA:TRUE"),
        ({"root": certificates().root}, "certificate"),
        ({"name": "other.edge.warren.internal"}, "doesn't match"),
        ({"alpn": ("test/1", "test/2")}, "ALPN"),
    ],
)
def test_a_server_that_is_not_the_right_one_is_refused_with_a_reason(arguments: dict[str, object], words: str) -> None:
    wire = Wire(**arguments)  # type: ignore[arg-type]
    assert not wire.told(wire.client, Connected)
    for end in (wire.client, wire.server):
        (closed,) = wire.told(end, Closed)
        assert isinstance(closed, Closed) and words in closed.reason
        assert 0x100 <= closed.code < 0x200
    assert wire.client.open_stream() is None


@pytest.mark.parametrize("field", ["root", "chain", "key"])
def test_what_is_no_pem_is_a_configuration_error(field: str) -> None:
    with pytest.raises(ConfigError, match=r"certificate|key"):
        if field == "root":
            engine().connect(ClientConfig("x", "y", b"nonsense"), 0.0)
        else:
            shown = {"chain": SHOWN.chain, "key": SHOWN.key, field: b"nonsense"}
            engine().endpoint(ServerConfig(("x",), **shown), 0.0)


def test_accept_takes_only_first_datagrams() -> None:
    asked = ServerConfig(("x",), SHOWN.chain, SHOWN.key)
    for first in (
        b"",
        b"\x00" * 1300,
        b"\xc0\x00\x00\x00\x02" + bytes(1300),
        b"\x40" * 1300,
        b"\xc0\x00\x00\x00\x01\x08",
    ):
        assert engine().accept(asked, first, 0.0) is None


def test_unknown_engine_is_a_configuration_error() -> None:
    assert engine("aioquic").name == "aioquic"
    with pytest.raises(ConfigError, match="use one of auto"):
        engine("quiche")  # type: ignore[arg-type]


# ---- streams


def test_bytes_go_both_ways_and_end() -> None:
    wire = Wire()
    stream = wire.client.open_stream()
    assert stream == 0
    assert wire.client.write(stream, b"question") == 8
    wire.client.finish(stream)
    wire.run(2)
    assert wire.told(wire.server, StreamOpened) == [StreamOpened(stream, True)]
    assert wire.told(wire.server, Readable) == [Readable(stream)]
    assert not wire.server.finished(stream)
    assert wire.server.read(stream, 5) == b"quest"
    assert wire.server.read(stream, 50) == b"ion"
    assert wire.server.finished(stream)
    assert wire.server.write(stream, memoryview(b"answer")) == 6
    wire.server.finish(stream)
    wire.run(2)
    assert wire.client.read(stream, 100) == b"answer" and wire.client.finished(stream)
    assert wire.client.read(stream, 100) == b"" and wire.client.write(stream, b"more") == 0


def test_readable_comes_once_until_read_to_empty() -> None:
    wire = Wire()
    stream = wire.client.open_stream(bidirectional=False)
    assert stream == 2
    for part in (b"a", b"b"):
        wire.client.write(stream, part)
        wire.run(2)
    assert wire.told(wire.server, StreamOpened) == [StreamOpened(stream, False)]
    assert len(wire.told(wire.server, Readable)) == 1
    assert wire.server.read(stream, 1) == b"a"
    assert wire.server.read(stream, 1) == b"b"
    wire.client.finish(stream)
    wire.run(2)
    assert len(wire.told(wire.server, Readable)) == 2
    assert wire.server.read(stream, 1) == b"" and wire.server.finished(stream)
    assert wire.server.write(stream, b"x") == 0


@aioquic_only
def test_a_write_takes_what_the_buffer_holds_and_promises_writable() -> None:
    wire = Wire(Limits(size=1444, send_buffer=50_000))
    stream = wire.client.open_stream()
    assert stream is not None
    assert wire.client.write(stream, bytes(200_000)) == 50_000
    assert wire.client.write(stream, b"x") == 0
    assert not wire.told(wire.client, Writable)
    wire.run(10)
    assert wire.told(wire.client, Writable) == [Writable(stream)]
    assert wire.client.write(stream, b"x") == 1
    wire.run(10)
    assert len(wire.told(wire.client, Writable)) == 1


@aioquic_only
def test_what_is_not_read_stays_with_the_sender() -> None:
    window = 100_000
    wire = Wire(Limits(size=1444, stream_window=window, connection_window=1 << 20))
    stream = wire.client.open_stream()
    assert stream is not None
    assert wire.client.write(stream, bytes(500_000)) == 500_000
    wire.run(60)
    assert len(wire.server.read(stream, 1 << 30)) == window
    wire.run(60)
    assert len(wire.server.read(stream, 1 << 30)) == window
    other = wire.client.open_stream()
    assert other is not None and wire.client.write(other, b"beside it") == 9
    wire.run(5)
    assert wire.server.read(other, 100) == b"beside it"
    total = 2 * window
    for _ in range(100):
        wire.run(3)
        total += len(wire.server.read(stream, 33_333))
    assert total == 500_000


def test_the_window_of_the_connection_slides_without_end() -> None:
    wire = Wire(Limits(size=1444, stream_window=70_000, connection_window=100_000))
    total = 0
    for _ in range(6):
        stream = wire.client.open_stream()
        assert stream is not None
        wire.client.write(stream, bytes(50_000))
        wire.client.finish(stream)
        wire.run(60)
        total += len(wire.server.read(stream, 1 << 20))
    assert total == 300_000


def test_reset_and_stop_reach_the_other_side() -> None:
    wire = Wire()
    one, two = wire.client.open_stream(), wire.client.open_stream()
    assert one is not None and two is not None
    wire.client.write(one, b"lost")
    wire.client.write(two, b"kept")
    wire.run(2)
    wire.client.reset(one, 7)
    wire.server.stop(two, 8)
    wire.run(3)
    assert wire.told(wire.server, StreamReset) == [StreamReset(one, 7)]
    assert wire.server.read(one, 10) == b"" and not wire.server.finished(one)
    assert wire.told(wire.client, StreamStopped) == [StreamStopped(two, 8)]
    assert wire.client.write(two, b"more") == 0 == wire.client.write(one, b"more")
    wire.client.finish(two)
    wire.server.finish(one)
    wire.server.finish(two)
    wire.run(5)
    assert wire.client.finished(one) and wire.client.finished(two)
    assert not wire.server.finished(one), "a reset stream never ended well"
    assert not wire.told(wire.client, Closed) + wire.told(wire.server, Closed)


def test_a_stream_that_is_over_here_is_not_opened_again_by_late_data() -> None:
    wire = Wire()
    stream = wire.client.open_stream()
    assert stream is not None
    wire.client.write(stream, b"one")
    wire.run(2)
    wire.server.stop(stream, 1)
    wire.server.finish(stream)
    wire.client.write(stream, b"two")
    batch = wire.client.transmit(wire.now)
    assert batch is not None
    wire.server.receive(batch.parts[0], 0, b"", wire.now)
    wire.run(5)
    assert wire.told(wire.server, StreamOpened) == [StreamOpened(stream, True)]
    assert not wire.told(wire.server, StreamReset)


@aioquic_only
def test_records_of_streams_that_are_over_go_away() -> None:
    wire = Wire(Limits(size=1444, streams=8))
    opened = 0
    while opened < 400:
        while (stream := wire.client.open_stream()) is not None:
            opened += 1
            wire.client.write(stream, b"q")
            wire.client.finish(stream)
        wire.run(3)
        for event in wire.told(wire.server, StreamOpened):
            assert isinstance(event, StreamOpened)
            wire.server.read(event.stream, 9)
            wire.server.finish(event.stream)
        wire.clear()
        wire.run(3)
        for stream in range(0, 4 * opened, 4):
            wire.client.read(stream, 9)
    for end in (wire.client, wire.server):
        assert len(end._streams._left) < 100 and not end._streams  # type: ignore[attr-defined]


def test_reset_after_finish_ends_what_is_not_acknowledged() -> None:
    wire = Wire()
    stream = wire.client.open_stream()
    assert stream is not None
    wire.client.write(stream, bytes(500_000))
    wire.client.finish(stream)
    wire.client.reset(stream, 3)
    wire.run(5)
    assert wire.told(wire.server, StreamReset) == [StreamReset(stream, 3)]


def test_streams_are_opened_only_as_the_peer_allows() -> None:
    wire = Wire(Limits(size=1444, streams=3))
    opened = [wire.client.open_stream() for _ in range(5)]
    assert opened == [0, 4, 8, None, None]
    for stream in (0, 4, 8):
        wire.client.write(stream, b"q")
        wire.client.finish(stream)
    wire.run(2)
    for stream in (0, 4, 8):
        assert wire.server.read(stream, 9) == b"q"
        wire.server.finish(stream)
    wire.run(5)
    assert wire.client.open_stream() == 12
    assert [wire.client.open_stream(bidirectional=False) for _ in range(4)] == [2, 6, 10, None]


def test_calls_on_streams_that_never_were_do_nothing() -> None:
    wire = Wire()
    assert wire.client.write(400, b"x") == 0 and wire.client.read(400, 1) == b""
    wire.client.finish(400)
    wire.client.reset(400, 1)
    wire.client.stop(400, 1)
    wire.run(2)
    assert not wire.told(wire.client, Closed)


# ---- datagrams


@aioquic_only
def test_datagrams_are_queued_within_bounds() -> None:
    wire = Wire(Limits(size=1444, datagrams=True, datagram_queue=3_000))
    room = wire.client.datagram_room()
    assert room == 1444 - 30
    assert not wire.client.send_datagram(bytes(room + 1))
    assert [wire.client.send_datagram(bytes(room)) for _ in range(3)] == [True, True, False]
    wire.run(3)
    assert [wire.client.send_datagram(bytes(room)) for _ in range(3)] == [True, True, False]
    wire.run(3)
    assert wire.told(wire.server, DatagramsReceived)
    received = [wire.server.read_datagram() for _ in range(5)]
    assert [data and len(data) for data in received] == [room] * 4 + [None]


@aioquic_only
def test_a_datagram_of_the_whole_room_fills_a_packet() -> None:
    wire = Wire()
    assert wire.client.send_datagram(bytes(wire.client.datagram_room()))
    batch = wire.client.transmit(wire.now)
    assert batch is not None and batch.stride == 1444


def test_no_datagrams_where_the_peer_takes_none() -> None:
    wire = Wire(LIMITS, server_limits=Limits(size=1444))
    assert wire.client.datagram_room() == 0
    assert not wire.client.send_datagram(b"")


# ---- batches and headers


def test_a_batch_is_a_run_of_equal_segments_behind_headers() -> None:
    wire = Wire()
    wire.client.write(wire.client.open_stream() or 0, bytes(100_000))
    batches = []
    while (batch := wire.client.transmit(wire.now, HEADER, 5)) is not None:
        batches.append(batch)
        parts = segments(batch)
        assert batch.segments <= 5 and all(part.startswith(HEADER) for part in parts)
        assert {len(part) for part in parts[:-1]} <= {batch.stride} and len(parts[-1]) <= batch.stride
    assert max(batch.stride for batch in batches) == 1444 + len(HEADER)


def test_interleaved_headers_reach_their_owner_only() -> None:
    one, two = Wire(), Wire()
    for wire in (one, two):
        wire.client.write(wire.client.open_stream() or 0, bytes(20_000))
    headers = {one: b"\x01CIRC__1", two: b"\x01CIRC__2"}
    datagrams = {}
    for wire, header in headers.items():
        datagrams[wire] = []
        for moment in range(20):  # the pacer lets a few go at a time
            while (batch := wire.client.transmit(wire.now + moment / 100, header)) is not None:
                datagrams[wire] += [part for part in segments(batch) if len(part) == 1452]
            wire.client.handle_timer(wire.now + moment / 100)
    junk = bytes(1452)
    a, b = datagrams[one], datagrams[two]
    mixed = [a[0], a[1], b[0], b[1], a[2], junk, b[2], a[3], b"\x01CIR"]
    buffer = b"".join(mixed)
    received = one.server.receive(memoryview(buffer), 1452, headers[one], one.now)
    assert received.authenticated and received.newest
    assert [(start // 1452, -(-end // 1452)) for start, end in received.foreign] == [(2, 4), (5, 6), (6, 7), (8, 9)]
    assert received.foreign[-1][1] == len(buffer)
    assert len(one.server.read(0, 1 << 20)) > 4 * 1300
    start, end = received.foreign[0]
    again = two.server.receive(buffer[start:end], 1452, headers[two], two.now)
    assert again[:2] == (True, True) and not again.foreign and len(two.server.read(0, 1 << 20)) > 2 * 1300
    old = one.server.receive(a[0], 0, headers[one], one.now)
    assert old[:2] == (False, False) and not old.foreign, "a duplicate"
    assert list(one.server.receive(b[0], 0, headers[one], one.now).foreign) == [(0, 1452)]


def test_newest_is_the_largest_number_not_the_latest_arrival() -> None:
    wire = Wire()
    wire.client.write(wire.client.open_stream() or 0, bytes(6_000))
    batch = wire.client.transmit(wire.now)
    assert batch is not None
    late, *rest = segments(batch)
    assert wire.server.receive(b"".join(rest), batch.stride, b"", wire.now)[:2] == (True, True)
    assert wire.server.receive(late, 0, b"", wire.now)[:2] == (True, False)
    assert wire.server.receive(late, 0, b"", wire.now)[:2] == (False, False)


# ---- ends


def test_close_reaches_both_at_once_and_what_came_can_still_be_read() -> None:
    wire = Wire()
    stream = wire.client.open_stream()
    assert stream is not None
    wire.client.write(stream, b"last words")
    wire.step()
    wire.client.close(9, "enough", wire.now)
    wire.step()
    assert wire.told(wire.client, Closed) == [Closed(9, "enough", True)]
    assert wire.told(wire.server, Closed) == [Closed(9, "enough", False)]
    assert wire.server.read(stream, 100) == b"last words"
    assert wire.client.write(stream, b"x") == 0 and wire.client.open_stream() is None
    assert not wire.client.send_datagram(b"x")
    wire.run(200)
    assert wire.client.timer() is None and wire.server.timer() is None
    wire.client.handle_timer(wire.now)
    assert len(wire.events[wire.client]) == len(wire.events[wire.server]) - 2


def test_a_lost_close_is_said_again() -> None:
    wire = Wire()
    wire.client.close(9, "enough", wire.now)
    assert wire.client.transmit(wire.now) is not None  # lost
    wire.server.write(wire.server.open_stream() or 0, b"hello?")
    wire.step(0.0)
    wire.step(0.0)
    assert wire.told(wire.server, Closed) == [Closed(9, "enough", False)]


def test_an_idle_connection_ends() -> None:
    wire = Wire(Limits(idle_timeout=5.0))
    wire.run(10)
    wire.now += 6.0
    wire.step()
    (closed,) = wire.told(wire.client, Closed)
    assert isinstance(closed, Closed) and closed.code == 0 and closed.ours and "idle" in closed.reason


@aioquic_only
def test_keys_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.fabric.engines.aioquic.core.PACKETS_PER_KEY", 50)
    wire = Wire()
    stream = wire.client.open_stream()
    assert stream is not None
    total = 0
    for _ in range(40):
        wire.client.write(stream, bytes(20_000))
        wire.run(3)
        total += len(wire.server.read(stream, 1 << 30))
    assert total == 40 * 20_000 and wire.client.statistics().sent > 500


def test_statistics_count() -> None:
    wire = Wire()
    stream = wire.client.open_stream()
    assert stream is not None
    wire.client.write(stream, bytes(50_000))
    wire.run(10)
    counted = wire.client.statistics()
    assert counted.sent >= 35 and counted.received > 5 and counted.phase
    assert 0 <= counted.smallest_round_trip <= counted.round_trip < 1.0
    for _ in range(100):  # a probe of the path's size may be under way
        if wire.client.in_flight():
            wire.run(1)
    assert wire.client.statistics().in_flight == 0 and not wire.client.in_flight()
    assert wire.client.sampled() and 0 < wire.client.pto() < 1.0
