"""The face `Endpoint`: demultiplexing by id, bounds on handshakes, Retry, versions, migration, timers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.fabric.engines.wire import LIMITS, SHOWN, Crowd
from warren.fabric.core.engine import Closed, Connected, Readable, ServerConfig

pytestmark = pytest.mark.usefixtures("on")
looks_inside = pytest.mark.parametrize("on", ["aioquic"], indirect=True)
SERVED = ServerConfig(("test/1",), SHOWN.chain, SHOWN.key, LIMITS)


def private(endpoint: object) -> Any:
    """For a look inside."""
    return endpoint


def test_many_clients_connect_and_each_is_heard_alone() -> None:
    crowd = Crowd(SERVED, 20)
    crowd.run(15)
    assert len(crowd.served) == 20
    for number, client in enumerate(crowd.clients.values()):
        stream = client.open_stream()
        assert stream is not None
        client.write(stream, b"%d" % number)
    crowd.run(5)
    read = []
    for served in crowd.served:
        assert crowd.told(served, Readable)
        data = served.read(0, 100)
        read.append(data)
        served.write(0, data[::-1])
        crowd.endpoint.touch(served)
    crowd.run(5)
    assert sorted(read) == sorted(b"%d" % number for number in range(20))
    for number, client in enumerate(crowd.clients.values()):
        assert client.read(0, 100) == (b"%d" % number)[::-1]
    assert sorted(crowd.endpoint.address(served) for served in crowd.served) == sorted(crowd.clients)


def test_a_buffer_may_hold_datagrams_of_several_connections() -> None:
    crowd = Crowd(SERVED, 2)
    crowd.run(10)
    sent = []
    for client in crowd.clients.values():
        client.write(client.open_stream() or 0, bytes(1_300))
        batch = client.transmit(crowd.now)
        assert batch is not None
        sent.append(b"".join(batch.parts)[: batch.stride])
    assert len(sent[0]) == len(sent[1])
    address = next(iter(crowd.clients))
    crowd.endpoint.receive(memoryview(b"".join(sent)), len(sent[0]), address, crowd.now)
    crowd.run(1)
    assert all(crowd.told(served, Readable) for served in crowd.served)


@looks_inside
def test_ids_that_are_retired_or_of_connections_that_are_over_leave_the_table() -> None:
    crowd = Crowd(SERVED, 3)
    crowd.run(10)
    table = private(crowd.endpoint)._table
    before = len(table)
    client: Any = next(iter(crowd.clients.values()))
    for _ in range(5):
        old = client._core._peer_cid.cid
        client._core.change_connection_id()
        client.write(client.open_stream(), b"x")
        crowd.run(4)
        assert old not in table and client._core._peer_cid.cid in table
    assert len(table) == before, "each retired id was replaced"
    crowd.endpoint.receive(b"\x40" + old + bytes(50), 0, ("10.9.9.9", 1), crowd.now)
    assert private(crowd.endpoint).dropped["unknown_id"] == 1
    for end in crowd.clients.values():
        end.close(0, "done", crowd.now)
    crowd.run(400)
    assert all(crowd.told(served, Closed) for served in crowd.served)
    assert not table and not private(crowd.endpoint)._timers and crowd.endpoint.timer() is None


@looks_inside
def test_handshakes_under_way_are_bounded_in_number_and_time() -> None:
    crowd = Crowd(replace(SERVED, half_open=4), 0)
    for _ in range(10):
        address, client = crowd.add()
        batch = client.transmit(crowd.now)
        assert batch is not None
        crowd.endpoint.receive(b"".join(batch.parts), 0, address, crowd.now)
    crowd.clients.clear()  # they never answer
    crowd.run(2)
    endpoint = private(crowd.endpoint)
    assert len(crowd.served) == 4 and endpoint.dropped["half_open"] == 6
    crowd.run(1_050)
    assert endpoint.dropped["handshake_time"] == 4
    assert all(crowd.told(served, Closed) for served in crowd.served)
    crowd.run(100)
    assert not endpoint._table and not endpoint._half_open
    address, client = crowd.add()
    crowd.run(10)
    assert crowd.told(client, Connected)


@looks_inside
def test_retry_is_asked_for_once_half_of_the_bound_is_used() -> None:
    crowd = Crowd(replace(SERVED, half_open=4, retry=True), 0)
    for _ in range(6):
        address, client = crowd.add()
        batch = client.transmit(crowd.now)
        assert batch is not None
        crowd.endpoint.receive(b"".join(batch.parts), 0, address, crowd.now)
    retries = [datagram for _, datagram in private(crowd.endpoint)._answers if datagram[0] & 0xF0 == 0xF0]
    assert len(retries) == 4, "the first two were taken as they were"
    crowd.run(20)
    assert all(crowd.told(client, Connected) for client in crowd.clients.values())
    assert len(crowd.served) == 6 and not private(crowd.endpoint).dropped


@looks_inside
def test_a_token_of_another_address_is_dropped() -> None:
    crowd = Crowd(replace(SERVED, half_open=1, retry=True), 1)
    client = next(iter(crowd.clients.values()))
    first = client.transmit(crowd.now)
    assert first is not None
    address = next(iter(crowd.clients))
    crowd.endpoint.receive(b"".join(first.parts), 0, address, crowd.now)
    found = crowd.endpoint.transmit(crowd.now)
    assert found is not None
    client.receive(found[1].parts[0], 0, b"", crowd.now)
    again = client.transmit(crowd.now)
    assert again is not None
    crowd.endpoint.receive(b"".join(again.parts), 0, ("10.66.0.1", 9), crowd.now)
    assert private(crowd.endpoint).dropped["bad_token"] == 1 and crowd.endpoint.accept() is None


@looks_inside
def test_unknown_versions_are_answered_no_longer_than_asked() -> None:
    crowd = Crowd(SERVED, 0)
    asked = b"\xc0\xfa\xce\xb0\x0c\x08" + b"D" * 8 + b"\x05" + b"S" * 5
    crowd.endpoint.receive(asked + bytes(1_200), 0, ("10.0.0.9", 9), crowd.now)
    found = crowd.endpoint.transmit(crowd.now)
    assert found is not None
    to, batch = found
    answer = bytes(batch.parts[0])
    assert to == ("10.0.0.9", 9) and answer[1:5] == bytes(4) and answer[-4:] == b"\x00\x00\x00\x01"
    assert answer[5:].startswith(b"\x05" + b"S" * 5 + b"\x08" + b"D" * 8)
    crowd.endpoint.receive(asked + bytes(100), 0, ("10.0.0.9", 9), crowd.now)
    crowd.endpoint.receive(answer, 0, ("10.0.0.9", 9), crowd.now)
    assert crowd.endpoint.transmit(crowd.now) is None
    for _ in range(100):
        crowd.endpoint.receive(asked + bytes(1_200), 0, ("10.0.0.9", 9), crowd.now)
    assert private(crowd.endpoint).dropped["answers"] == 36


def test_a_client_that_moves_is_followed_and_its_path_validated() -> None:
    crowd = Crowd(SERVED, 2)
    crowd.run(10)
    old, client = next(iter(crowd.clients.items()))
    (served,) = [served for served in crowd.served if crowd.endpoint.address(served) == old]
    del crowd.clients[old]
    new = ("10.77.0.1", 999)
    crowd.clients[new] = client
    crowd.sent.clear()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"from elsewhere")
    crowd.run(10)
    assert crowd.endpoint.address(served) == new
    assert served.read(stream, 100) == b"from elsewhere"
    served.write(stream, bytes(30_000))
    crowd.endpoint.touch(served)
    crowd.run(30)
    assert len(client.read(stream, 1 << 20)) == 30_000
    assert all(to == new for to, _ in crowd.sent if to in (old, new))


@looks_inside
def test_quiet_connections_cost_nothing_per_packet() -> None:
    crowd = Crowd(SERVED, 30)
    crowd.run(40)
    endpoint = private(crowd.endpoint)
    assert not endpoint._outgoing and not endpoint._lively
    client = next(iter(crowd.clients.values()))
    client.write(client.open_stream() or 0, b"x")
    batch = client.transmit(crowd.now)
    assert batch is not None
    crowd.endpoint.receive(b"".join(batch.parts), 0, next(iter(crowd.clients)), crowd.now)
    assert len(endpoint._outgoing) == 1
    assert len(endpoint._timers) <= 4 * 30
