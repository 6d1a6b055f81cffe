"""The module `warren_quic` itself: what Python sees of it. The rest is tested in Rust (quic/tests)."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.certificates import SERVER_NAME, certificates

wq = pytest.importorskip("warren_quic", exc_type=ImportError)
wq.Connection  # noqa: B018  # a bare folder of that name imports too

SHOWN = certificates()
MS = 1_000_000
HEADER = b"\x01CIRCUIT"


def two(**changes: Any) -> tuple[Any, Any]:
    """A client and a server that have not spoken yet."""
    chosen = wq.Settings(size=1444, datagrams=True, **changes)
    client = wq.Client(SERVER_NAME, SHOWN.root, "test/1", chosen).connect(0)
    return client, wq.Server(SHOWN.chain, SHOWN.key, ["test/1"], chosen).accept(0)


def settle(client: Any, server: Any, start: int = 0, rounds: int = 60) -> int:
    """Exchanges everything there is; returns the time."""
    now = start
    for _ in range(rounds):
        now += 5 * MS
        for a, b in ((client, server), (server, client)):
            if (due := a.timer()) is not None and due <= now:
                a.handle_timer(now)
            while (made := a.transmit(now, HEADER, 44)) is not None:
                data, stride, segments = made
                assert len(data) > (segments - 1) * stride and len(data) <= segments * stride
                assert all(data[at : at + 8] == HEADER for at in range(0, len(data), stride))
                assert b.receive(data, stride, HEADER, now)[2] == []
    return now


def test_a_transfer_with_a_header_in_front_of_every_datagram() -> None:
    client, server = two()
    now = settle(client, server)
    word, alpn, certificate, group = client.poll_events()[0]
    assert (word, alpn, group) == ("connected", "test/1", "X25519MLKEM768") and certificate
    assert server.poll_events()[0][:3] == ("connected", "test/1", None)
    stream = client.open_stream(True)
    assert client.write(stream, bytearray(b"x" * 50_000)) == 50_000
    client.finish(stream)
    assert client.send_datagram(memoryview(b"beside"))
    now = settle(client, server, now)
    words = [event[0] for event in server.poll_events()]
    assert words[0] == "opened" or words[1] == "opened"
    assert {"opened", "readable", "datagrams"} == set(words)
    assert server.read(stream, 10) == b"x" * 10
    assert server.read(stream, 1 << 20) == b"x" * 49_990
    assert server.finished(stream)
    assert server.read_datagram() == b"beside" and server.read_datagram() is None
    figures = client.statistics()
    assert figures.sent > 30 and figures.phase in ("startup", "drain", "down") and figures.size == 1444


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 1000},
        {"idle_timeout": float("nan")},
        {"connection_window": 1},
        {"drop": "both"},
        {"controller": "bbr"},
        {"streams": 1 << 20},
    ],
)
def test_wrong_settings_are_refused_in_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(wq.InvalidInputError) as caught:
        wq.Settings(**wrong)
    assert next(iter(wrong)) in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_what_is_no_key_or_certificate_is_refused() -> None:
    chosen = wq.Settings()
    for call in (
        lambda: wq.Client("no name!", SHOWN.root, "x", chosen),
        lambda: wq.Client(SERVER_NAME, SHOWN.root * 2, "x", chosen),
        lambda: wq.Client(SERVER_NAME, b"", "x", chosen),
        lambda: wq.Client(SERVER_NAME, SHOWN.root, "", chosen),
        lambda: wq.Server(SHOWN.chain, b"nothing", ["x"], chosen),
        lambda: wq.Server(SHOWN.chain, certificates().key, ["x"], chosen),
        lambda: wq.Server(SHOWN.chain, SHOWN.key, [], chosen),
    ):
        with pytest.raises(wq.InvalidInputError):
            call()


def test_a_leaf_that_is_a_ca_is_refused() -> None:
    shown = certificates(ca_leaf=True)
    chosen = wq.Settings()
    client = wq.Client(SERVER_NAME, shown.root, "test/1", chosen).connect(0)
    server = wq.Server(shown.chain, shown.key, ["test/1"], chosen).accept(0)
    settle(client, server)
    (event,) = client.poll_events()
    assert event[0] == "closed" and 0x100 <= event[1] < 0x200 and event[3] is True


def test_another_name_is_refused_by_the_client_and_another_protocol_by_the_server() -> None:
    chosen = wq.Settings()
    for name, alpn, refuses in (("other.edge.warren.internal", "test/1", 0), (SERVER_NAME, "test/2", 1)):
        client = wq.Client(name, SHOWN.root, alpn, chosen).connect(0)
        server = wq.Server(SHOWN.chain, SHOWN.key, ["test/1"], chosen).accept(0)
        settle(client, server)
        assert [event[0] for event in (client, server)[refuses].poll_events()] == ["closed"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=4000), st.integers(0, 5000), st.binary(max_size=9))
def test_any_bytes_give_a_value(data: bytes, stride: int, header: bytes) -> None:
    client, server = two()
    for end in (client, server):
        authenticated, newest, foreign = end.receive(data, stride, header, MS)
        assert not authenticated and not newest
        assert all(0 <= start < stop <= len(data) for start, stop in foreign)


@settings(max_examples=100, deadline=None)
@given(st.integers(-5, 1 << 70), st.integers(-5, 1 << 70))
def test_any_numbers_give_a_value_or_the_documented_exception(one: int, other: int) -> None:
    client, server = two()
    now = settle(client, server, rounds=12)
    stream = client.open_stream(True)
    for call in (
        lambda: client.write(one, b"x"),
        lambda: client.read(stream, other),
        lambda: client.finished(one),
        lambda: client.reset(stream, other),
        lambda: client.stop(one, other),
        lambda: client.close(one, "", now),
        lambda: client.resize(one),
        lambda: client.transmit(now, b"", other),
        lambda: client.handle_timer(other),
    ):
        with contextlib.suppress(wq.InvalidInputError, OverflowError, MemoryError):
            call()


def test_a_buffer_has_to_be_contiguous() -> None:
    client, _ = two()
    with pytest.raises((wq.InvalidInputError, BufferError)):
        client.receive(memoryview(b"abcdef")[::2], 0, b"", 0)


def test_an_endpoint_serves_many_and_follows_a_client_that_moves() -> None:
    chosen = wq.Settings()
    clients = [wq.Client(SERVER_NAME, SHOWN.root, "test/1", chosen).connect(0) for _ in range(5)]
    endpoint = wq.Server(SHOWN.chain, SHOWN.key, ["test/1"], chosen).endpoint(0)
    ports = {client: 1000 + i for i, client in enumerate(clients)}
    now, served = 0, {}

    def rounds(count: int) -> None:
        nonlocal now
        for _ in range(count):
            now += 5 * MS
            endpoint.handle_timer(now)
            for client, port in ports.items():
                client.handle_timer(now)
                while (made := client.transmit(now, b"", 44)) is not None:
                    endpoint.receive(made[0], made[1], "10.0.0.1", port, now)
            while (new := endpoint.accept()) is not None:
                served[new[0]] = new[1]
            while (made := endpoint.transmit(now, 44)) is not None:
                host, port, data, stride, _ = made
                (client,) = [c for c, p in ports.items() if p == port]
                assert host == "10.0.0.1"
                client.receive(data, stride, b"", now)

    rounds(40)
    assert len(served) == 5 and endpoint.counters()[:3] == (5, 0, 5)
    first = clients[0]
    stream = first.open_stream(True)
    ports[first] = 2000
    first.write(stream, b"from another port")
    rounds(40)
    found = []
    while (name := endpoint.active()) is not None:
        found += [name for event in served[name].poll_events() if event[0] == "readable"]
    (name,) = found
    assert served[name].address() == ("10.0.0.1", 2000)
    assert served[name].read(stream, 100) == b"from another port"
    for client in clients:
        client.close(0, "done", now)
    rounds(600)
    assert endpoint.counters()[:2] == (0, 0) and endpoint.timer() is None


def test_a_flood_of_handshakes_is_asked_for_proof_and_then_dropped() -> None:
    chosen = wq.Settings()
    endpoint = wq.Server(SHOWN.chain, SHOWN.key, ["test/1"], chosen).endpoint(0, retry=True, half_open=8)
    for port in range(100, 140):
        data, stride, _ = wq.Client(SERVER_NAME, SHOWN.root, "test/1", chosen).connect(0).transmit(0, b"", 44)
        endpoint.receive(data, stride, "10.0.0.1", port, MS)
    connections, handshaking, accepted, retried, dropped, given_up, failed = endpoint.counters()
    assert (connections, handshaking, accepted, failed) == (4, 4, 4, 0) and retried >= 36 and dropped == given_up == 0
    while endpoint.transmit(MS, 44) is not None:
        pass
    endpoint.handle_timer(20_000 * MS)
    while endpoint.transmit(20_000 * MS, 44) is not None:
        pass
    assert endpoint.counters()[1] == 0 and endpoint.counters()[5] == 4


def test_unread_memory_is_counted_and_given_back() -> None:
    client, server = two()
    now = settle(client, server)
    before = wq.memory_used()
    stream = client.open_stream(False)
    assert client.write(stream, bytes(100_000)) == 100_000
    settle(client, server, now)
    assert wq.memory_used() - before >= 100_000
    assert len(server.read(stream, 1 << 20)) == 100_000
    assert wq.memory_used() == before
    with pytest.raises(wq.InvalidInputError):
        wq.set_memory_limit(1)


def test_calls_from_several_threads_wait_for_each_other() -> None:
    client, server = two()
    now = settle(client, server)
    streams = [client.open_stream(False) for _ in range(4)]

    def work(stream: int) -> None:
        for _ in range(200):
            client.write(stream, bytes(500))
            client.transmit(now, HEADER, 4)
            client.receive(b"noise" * 20, 0, b"", now)
            client.statistics()

    threads = [threading.Thread(target=work, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.statistics().sent > 0
