"""Any bytes are allowed: nothing raises, and nobody else notices."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.certificates import SERVER_NAME
from tests.unit.fabric.engines.wire import AIOQUIC, HEADER, LIMITS, SHOWN, Crowd, Wire, segments
from warren.fabric.core.engine import ClientConfig, Closed, Connected, Engine, Limits, ServerConfig
from warren.fabric.engines.aioquic.packets import initial_of, long_header

SERVED = ServerConfig(("test/1",), SHOWN.chain, SHOWN.key, LIMITS)


def works(wire: Wire) -> bool:
    """Whether a stream still goes over, both ways."""
    stream = wire.client.open_stream()
    assert stream is not None
    wire.client.write(stream, b"ping")
    wire.run(4)
    wire.server.write(stream, wire.server.read(stream, 100))
    wire.run(4)
    return wire.client.read(stream, 100) == b"ping"


SHARED = Wire()


@given(st.binary(max_size=3_000), st.integers(0, 1_600), st.sampled_from([b"", HEADER, b"\x40"]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_into_a_live_connection(data: bytes, stride: int, header: bytes) -> None:
    for end in (SHARED.client, SHARED.server):
        received = end.receive(data, stride, header, SHARED.now)
        assert not received.authenticated
        assert all(0 <= start < end_ <= len(data) for start, end_ in received.foreign) or not data


def test_the_live_connection_works_after_that() -> None:
    assert works(SHARED)
    assert not SHARED.told(SHARED.client, Closed)


@given(st.binary(max_size=100), st.sampled_from([b"", b"\xc0\x00\x00\x00\x01", b"\xff\x00\x00\x00\x09", b"\x40"]))
@settings(max_examples=300, deadline=None)
def test_headers_are_parsed_totally(data: bytes, start: bytes) -> None:
    whole = start + data
    for datagram in (whole, whole.ljust(1_200, b"\x00")):
        header = long_header(datagram)
        assert header is None or len(header.token) <= len(datagram)
        first = initial_of(datagram)
        assert first is None or 8 <= len(first.destination) <= 20


def mutate(rnd: random.Random, datagram: bytes) -> bytes:
    """A real datagram, spoilt."""
    spoilt = bytearray(datagram)
    kind = rnd.randrange(5)
    if kind == 0:
        for _ in range(rnd.randint(1, 4)):
            spoilt[rnd.randrange(min(60, len(spoilt)))] = rnd.randrange(256)
    elif kind == 1:
        del spoilt[rnd.randrange(len(spoilt)) :]
    elif kind == 2:
        spoilt[rnd.randrange(len(spoilt))] ^= 1 << rnd.randrange(8)
    elif kind == 3:
        spoilt += rnd.randbytes(rnd.randint(1, 200))
    else:
        at = rnd.randrange(len(spoilt))
        spoilt[at:at] = rnd.randbytes(rnd.randint(1, 30))
    return bytes(spoilt)


@pytest.mark.parametrize("seed", range(6))
def test_spoilt_copies_of_every_datagram_of_a_conversation(seed: int) -> None:
    rnd = random.Random(seed)
    wire = Wire(connect=False)
    for step in range(40):
        wire.now += 0.01
        if step == 15:
            stream = wire.client.open_stream()
            assert stream is not None
            wire.client.write(stream, bytes(50_000))
            wire.client.send_datagram(bytes(800))
        for end in (wire.client, wire.server):
            at = end.timer()
            if at is not None and at <= wire.now:
                end.handle_timer(wire.now)
            while (batch := end.transmit(wire.now)) is not None:
                for datagram in segments(batch):
                    for _ in range(4):
                        wire.other(end).receive(mutate(rnd, datagram), 0, b"", wire.now)
                    wire.other(end).receive(datagram, 0, b"", wire.now)
        wire.poll()
    # Before the keys are known a spoilt Initial can end a handshake (so can whoever sees it); nothing raises.
    for end in (wire.client, wire.server):
        assert wire.told(end, Connected) or wire.told(end, Closed)


def spoil(rnd: random.Random, stream: Any) -> None:
    """Changes a few bytes of handshake messages that were not sent yet."""
    waiting = stream.sender._buffer
    for _ in range(rnd.choice([1, 1, 2, 5]) if waiting else 0):
        waiting[rnd.randrange(len(waiting))] = rnd.choice([0, 1, 255, rnd.randrange(256)])


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("seed", range(3))
def test_spoilt_handshake_messages_under_true_keys(seed: int) -> None:
    """What anybody may send: Initial keys are public. (cryptography's InvalidVersion escapes the library's TLS.)"""
    rnd = random.Random(seed)
    for _ in range(80):
        client: Any = AIOQUIC.connect(ClientConfig("test/1", SERVER_NAME, SHOWN.root, LIMITS), 0.0)
        where = rnd.randrange(3)
        if where == 0:
            spoil(rnd, next(iter(client._core._crypto_streams.values())))
        first = client.transmit(0.0)
        server: Any = AIOQUIC.accept(SERVED, first.parts[0], 0.0)
        server.receive(first.parts[0], 0, b"", 0.0)
        if where:
            spoil(rnd, list(server._core._crypto_streams.values())[where - 1])
        for step in range(1, 6):
            for sender, receiver in ((server, client), (client, server)):
                while (batch := sender.transmit(step / 100)) is not None:
                    for datagram in segments(batch):
                        receiver.receive(datagram, 0, b"", step / 100)
        for end in (client, server):
            ended = [event for event in iter(end.poll_event, None) if isinstance(event, Closed)]
            assert len(ended) <= 1 and all(event.reason for event in ended if event.ours)


def frames(*parts: int | bytes) -> bytes:
    """A packet's payload; integers are variable-length ones of 8 bytes."""
    return b"".join(part if isinstance(part, bytes) else (part | 3 << 62).to_bytes(8, "big") for part in parts)


LARGE = (1 << 62) - 1
HOSTILE = [
    frames(0x18, 1, 1, b"\x08" + bytes(8), bytes(16)),  # retires the id in use, gives one that is known already
    frames(0x18, LARGE, LARGE, b"\x08" + bytes(8), bytes(16)),
    frames(0x18, 9, 9, b"\x00", bytes(16)),
    frames(0x19, 0),
    frames(0x19, LARGE),
    frames(0x02, LARGE, 0, 0, LARGE),
    frames(0x02, LARGE, LARGE, 0, 0),
    frames(0x02, 5, 0, LARGE, 0),
    frames(0x03, 1, 0, 0, 1),
    frames(0x04, 0, 1, LARGE),
    frames(0x04, 2, 1, 0),
    frames(0x05, 0, 1),
    frames(0x05, 3, 1),
    frames(0x06, LARGE, 0),
    frames(0x06, 0, 4, b"\xff\xff\xff\xff"),
    frames(0x06, 0, 8, b"\x04\x00\x00\x04abcd"),
    frames(0x06, 0, 4, b"\x18\x00\x00\x01"),
    frames(0x06, 1 << 18, 1, b"x"),
    frames(0x07, 0),
    frames(0x0F, 1_000_000, 0, 1, b"x"),
    frames(0x0F, 0, LARGE, 1, b"x"),
    frames(0x0F, 0, 1 << 40, 1, b"x"),
    frames(0x11, 0, LARGE),
    frames(0x12, LARGE),
    frames(0x17, LARGE),
    frames(0x1A, b"12345678") * 50,
    frames(0x1B, b"12345678"),
    frames(0x1C, LARGE, 0, 3, b"\xff\xfe\xfd"),
    frames(0x1D, 0, LARGE),
    frames(0x1E),
    frames(0x31, LARGE),
    frames(0x40),
    b"",
]


def inject(wire: Wire, sender: Any, payload: bytes) -> None:
    """Sends a packet with this payload under the sender's own keys: what a hostile peer can do."""
    core = sender._core
    crypto = core._cryptos[next(epoch for epoch in core._cryptos if epoch.name == "ONE_RTT")]
    number = core._packet_number
    core._packet_number += 1
    header = bytes([0x41 | crypto.key_phase << 2]) + core._peer_cid.cid + (number & 0xFFFF).to_bytes(2, "big")
    packet = crypto.encrypt_packet(header, payload.ljust(4, b"\x00") if payload else payload + bytes(4), number)
    wire.other(sender).receive(packet, 0, b"", wire.now)


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda payload: payload[:17].hex())
@pytest.mark.parametrize("who", ["client", "server"])
def test_hostile_frames_end_at_most_their_own_connection(payload: bytes, who: str, on: Engine) -> None:
    wire = Wire(engines=(AIOQUIC, on) if who == "client" else (on, AIOQUIC))
    opened = wire.client.open_stream()
    assert opened is not None
    wire.client.write(opened, b"x")
    wire.run(3)
    for times in range(3):
        inject(wire, getattr(wire, who), payload)
        wire.run(2)
        assert times >= 0
    wire.run(100)
    for end in (wire.client, wire.server):
        assert len(wire.told(end, Closed)) <= 1


@given(payload=st.binary(min_size=4, max_size=200), kind=st.integers(0, 0x31))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_frames_under_true_keys(payload: bytes, kind: int) -> None:
    global FUZZED
    if FUZZED.told(FUZZED.server, Closed) or FUZZED.told(FUZZED.client, Closed):
        FUZZED = Wire()
    inject(FUZZED, FUZZED.client, bytes([kind]) + payload)
    inject(FUZZED, FUZZED.server, bytes([kind]) + payload)
    FUZZED.run(2)


FUZZED = Wire()


# ---- the endpoint


@given(st.binary(max_size=2_800), st.integers(0, 1_500), st.sampled_from([b"", b"\xc0\x00\x00\x00\x01\x08", b"\x40"]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_into_an_endpoint(data: bytes, stride: int, start: bytes) -> None:
    CROWD.endpoint.receive(start + data, stride, ("192.0.2.1", 7), CROWD.now)
    CROWD.endpoint.receive((start + data).ljust(1_250, b"\x00"), 0, ("192.0.2.1", 7), CROWD.now)
    CROWD.step()


CROWD = Crowd(SERVED, 2)


def test_the_endpoints_connections_do_not_notice() -> None:
    CROWD.run(20)
    assert len(CROWD.served) == 2
    for connection in [*CROWD.clients.values(), *CROWD.served]:
        assert CROWD.told(connection, Connected) and not CROWD.told(connection, Closed)


def test_one_hostile_client_of_an_endpoint_ends_alone() -> None:
    crowd = Crowd(SERVED, 3)
    crowd.run(10)
    address, hostile = next(iter(crowd.clients.items()))
    core: Any = hostile
    core = core._core
    crypto = core._cryptos[next(epoch for epoch in core._cryptos if epoch.name == "ONE_RTT")]
    header = bytes([0x41]) + core._peer_cid.cid + (core._packet_number & 0xFFFF).to_bytes(2, "big")
    packet = crypto.encrypt_packet(header, frames(0x18, 1, 1, b"\x08" + bytes(8), bytes(16)), core._packet_number)
    crowd.endpoint.receive(packet, 0, address, crowd.now)
    crowd.run(10)
    ended = [connection for connection in crowd.served if crowd.told(connection, Closed)]
    assert len(ended) <= 1
    others = [connection for connection in crowd.clients.values() if connection is not hostile]
    assert not any(crowd.told(connection, Closed) for connection in others)


def test_what_the_library_raises_ends_the_connection_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()

    def raises(*_: object, **__: object) -> None:
        raise IndexError("pop from empty list")

    core: Any = wire.server
    monkeypatch.setattr(core._core._loss, "on_ack_received", raises)
    stream = wire.client.open_stream()
    assert stream is not None
    wire.server.write(wire.server.open_stream() or 0, b"x")
    wire.run(3)
    (closed,) = wire.told(wire.server, Closed)
    assert isinstance(closed, Closed) and closed.ours and "IndexError" in closed.reason
    (told,) = wire.told(wire.client, Closed)
    assert isinstance(told, Closed) and not told.ours
    assert core.dropped["library_raised"] == 1


def test_limits_of_a_stream_bound_what_a_gap_may_reserve() -> None:
    wire = Wire(Limits(size=1444, stream_window=1 << 20, connection_window=2 << 20))
    stream = wire.client.open_stream()
    assert stream is not None
    for _ in range(30):
        wire.client.write(stream, bytes(200_000))
        wire.run(6)
        wire.server.read(stream, 1 << 30)
    server: Any = wire.server
    record = server._core.stream(stream)
    assert record.receiver.highest_offset > 4 << 20
    assert record.max_stream_data_local - record.receiver.highest_offset <= 1 << 20
    limit = server._core._local_max_data
    assert limit.value - limit.used <= 2 << 20
