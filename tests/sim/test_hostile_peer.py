"""An enrolled agent says what it likes inside its own peer connection: that connection ends at most, nothing raises,
and what it can make the connector hold is bounded."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from tests.sim.conftest import SEEDS
from tests.sim.peer_pair import Pair
from tests.sim.test_peer import opened, ready
from warren.fabric.core.credit import INITIAL_WINDOW
from warren.fabric.core.messages.peer import ON_STREAM, TO_CONNECTOR, Credit, Ended, Open, Prove, Resolve
from warren.fabric.core.peer import FlowAsked, PeerClosed
from warren.fabric.core.reasons import Reason


@pytest.fixture(autouse=True)
def on_aioquic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose streams can be looked into: what the engine holds is part of what is bounded."""
    monkeypatch.setenv("WARREN_ENGINE", "aioquic")


MIB = 1 << 20
LARGE = (1 << 63) - 1


def message(tag: str, **fields: object) -> bytes:
    body = msgspec.msgpack.encode({"type": tag, **fields})
    return len(body).to_bytes(4, "big") + body


def held(pair: Pair) -> int:
    """Bytes of the agent's that the connector holds: unread in the engine, and in flows."""
    connection: Any = pair.other.connection
    records = connection._streams._records.values()
    return sum(record.unread for record in records) + sum(flow.buffered for flow in pair.other.flows.values())


def closed(pair: Pair) -> list[PeerClosed]:
    return [event for event in pair.connector_events if isinstance(event, PeerClosed)]


def pour(pair: Pair, stream: int, data: bytes, rounds: int) -> None:
    for _ in range(rounds):
        pair.agent.connection.write(stream, data)
        pair.run()


CONTROL = {
    "random": random.Random(1).randbytes(5000),
    "too long": (1 << 24).to_bytes(4, "big"),
    "longest length": b"\xff\xff\xff\xff",
    "not msgpack": (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",
    "empty": bytes(4),
    "deep": (60_000).to_bytes(4, "big") + b"\x91" * 60_000,
    "no tag": (1).to_bytes(4, "big") + b"\x80",
    "unknown tag": message("Surprise"),
    "of another end": message("Unreachable", flow=bytes(16), reason=1),
    "a second proof": TO_CONNECTOR.encode(Prove(bytes(32), bytes(64), bytes(16))),
    "wrong types": message("Credit", flow=7, offset="much"),
    "wrong way to end": message("Ended", flow=bytes(16), how="explode", offset=1),
    "a number too large": message("Credit", flow=bytes(16), offset=1e300),
}


@pytest.mark.parametrize("name", CONTROL)
def test_nonsense_on_the_control_stream_ends_its_own_connection(name: str) -> None:
    pair = ready()
    assert pair.agent.control is not None
    pour(pair, pair.agent.control.stream, CONTROL[name], 1)
    (end,) = closed(pair)
    assert end.reason is Reason.PROTOCOL and end.ours


HARMLESS = {
    "credit of nobody": TO_CONNECTOR.encode(Credit(b"nobody", LARGE)),
    "credit below zero": TO_CONNECTOR.encode(Credit(bytes(16), -LARGE)),
    "end of nobody": TO_CONNECTOR.encode(Ended(bytes(16), "reset", -1)),
    "a field of tomorrow": message("Credit", flow=bytes(16), offset=1, colour="green"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_concerns_nobody_changes_nothing(name: str) -> None:
    pair = ready()
    here, there = opened(pair)
    assert pair.agent.control is not None
    pour(pair, pair.agent.control.stream, HARMLESS[name] * 50, 1)
    assert not closed(pair)
    assert here.write(b"still here") == 10
    pair.run()
    assert bytes(there.read(100)) == b"still here"


@pytest.mark.parametrize(
    "first",
    [b"\xff\xff\xff\xff", bytes(4), random.Random(2).randbytes(400), message("Opened"), message("Refused", reason=1),
     message("Open", flow=b"short", grant=b"", protocol="tcp", port=80),
     message("Open", flow=bytes(16), grant=b"", protocol="sctp", port=80)],
    ids=["length", "empty", "random", "opened", "refused", "short-id", "protocol"],
)  # fmt: skip
def test_nonsense_at_the_head_of_a_stream_ends_its_own_connection(first: bytes) -> None:
    pair = ready()
    stream = pair.agent.connection.open_stream()
    assert stream is not None
    pour(pair, stream, first, 1)
    assert [end.reason for end in closed(pair)] == [Reason.PROTOCOL]


def test_a_flow_id_in_use_is_a_fault() -> None:
    pair = ready()
    here, _ = opened(pair)
    stream = pair.agent.connection.open_stream()
    assert stream is not None
    pour(pair, stream, ON_STREAM.encode(Open(here.id, b"", "tcp", 80)), 1)
    assert [end.reason for end in closed(pair)] == [Reason.PROTOCOL]


def test_streams_that_never_say_whose_they_are_hold_a_head_each() -> None:
    """A length is announced, and its bytes never come whole."""
    pair = ready()
    streams = 0
    while (stream := pair.agent.connection.open_stream()) is not None:
        streams += 1
        pair.agent.connection.write(stream, (16_384).to_bytes(4, "big") + bytes(16_000))
        pair.run()
    assert 200 < streams <= 256 and not closed(pair)
    assert not pair.other.flows


def test_what_is_written_to_a_refused_flow_is_not_kept() -> None:
    pair = ready()
    for number in range(20):
        stream = pair.agent.connection.open_stream()
        assert stream is not None
        pour(pair, stream, ON_STREAM.encode(Open(number.to_bytes(16, "big"), b"", "tcp", 80, address="10.0.0.1")), 1)
        asked = next(e for e in reversed(pair.connector_events) if isinstance(e, FlowAsked))
        pair.other.refuse(asked.flow, Reason.NO_ROUTE)
        pour(pair, stream, bytes(65_536), 30)
    assert held(pair) < 64 << 10, held(pair)


@pytest.mark.parametrize("liar", ["agent", "connector"])
def test_what_is_written_behind_the_end_of_a_flow_is_not_kept(liar: str) -> None:
    """The end was told as a position, but the stream goes on."""
    pair = ready()
    for _ in range(10):
        here, there = opened(pair)
        sender, reader = (here, there) if liar == "agent" else (there, here)
        end, peer = (pair.agent, pair.other) if liar == "agent" else (pair.other, pair.agent)
        end._tell(Ended(sender.id, "end", 0))
        pair.run()
        reader.end()
        peer.settled(reader)
        assert reader.id not in peer.flows
        for _ in range(30):
            end.connection.write(sender.stream, bytes(65_536))
            pair.run()
        connection: Any = peer.connection
        assert sum(record.unread for record in connection._streams._records.values()) < 64 << 10


def test_streams_of_ended_flows_are_forgotten() -> None:
    pair = ready()
    for _ in range(30):
        here, there = opened(pair)
        here.end()
        there.end()
        pair.run()
        pair.agent.settled(here)
        pair.other.settled(there)
        pair.run()
    for peer in (pair.agent, pair.other):
        connection: Any = peer.connection
        assert len(connection._streams._records) <= 3, "the control stream, and the greeting"


def test_what_is_written_before_the_answer_is_one_window_at_most() -> None:
    pair = ready()
    stream = pair.agent.connection.open_stream()
    assert stream is not None
    pour(pair, stream, ON_STREAM.encode(Open(bytes(16), b"", "tcp", 80, address="10.0.0.1")), 1)
    pour(pair, stream, bytes(65_536), 30)
    assert [end.reason for end in closed(pair)] == [Reason.PROTOCOL]
    assert held(pair) <= INITIAL_WINDOW


def test_questions_that_nobody_answers_are_asked_on_without_end_and_cost_nothing_here() -> None:
    """The connector's shell bounds how many are under way (`DIALS`); its answers, unread, end the connection."""
    pair = ready()
    assert pair.agent.control is not None
    for number in range(300):
        pour(pair, pair.agent.control.stream, TO_CONNECTOR.encode(Resolve(number, b"", b"?")), 1)
        pair.other.resolved(number, bytes(8192))
        if closed(pair):
            break
    assert held(pair) < MIB


@pytest.mark.parametrize("seed", range(SEEDS))
def test_anything_on_any_stream(seed: int) -> None:
    """Whole messages with their fields spoilt, cut, repeated, on control and data streams, in any order."""
    rnd = random.Random(seed)
    pair = ready(seed=seed)
    here, _ = opened(pair)
    connection = pair.agent.connection
    assert pair.agent.control is not None
    streams = [pair.agent.control.stream, here.stream]
    for _ in range(40):
        if rnd.random() < 0.3 and (stream := connection.open_stream()) is not None:
            streams.append(stream)
        what: list[Any] = [Credit(here.id, rnd.randrange(-5, 1 << 40)), Ended(here.id, "end", rnd.randrange(-1, 9)),
                           Open(rnd.randbytes(16), rnd.randbytes(9), "udp", rnd.randrange(-1, 70_000))]  # fmt: skip
        chosen = rnd.choice(what)
        data = bytearray(ON_STREAM.encode(chosen) if isinstance(chosen, Open) else TO_CONNECTOR.encode(chosen))
        if rnd.random() < 0.3:
            data[rnd.randrange(len(data))] ^= 1 << rnd.randrange(8)
        stream = rnd.choice(streams)
        match rnd.randrange(8):
            case 0:
                connection.finish(stream)
            case 1:
                connection.reset(stream, rnd.randrange(1 << 40))
            case 2:
                connection.stop(stream, rnd.randrange(1 << 40))
            case _:
                connection.write(stream, bytes(data) * rnd.randrange(1, 4))
        pair.run()
        for asked in [e for e in pair.connector_events if isinstance(e, FlowAsked)]:
            if rnd.random() < 0.5:
                pair.other.refuse(asked.flow, Reason.NO_ROUTE)
            else:
                pair.other.opened(asked.flow, "10.0.0.1")
        pair.connector_events = [e for e in pair.connector_events if not isinstance(e, FlowAsked)]
    assert len(closed(pair)) <= 1
    assert held(pair) <= 2 * INITIAL_WINDOW
