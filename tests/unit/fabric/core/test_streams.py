"""Messages on control streams, and who is told about which stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fabric.core.pair import Side, face, pair
from warren.fabric.core.engine import Closed, Connected, StreamReset, StreamStopped
from warren.fabric.core.errors import WireError
from warren.fabric.core.messages.attachment import TO_SWITCH, Beat, Drop, ToSwitch
from warren.fabric.core.messages.peer import ON_STREAM, OnStream, Open, Opened
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import SEND_LIMIT, MessageStream, Streams

DROP = Drop(b"circuit")


def ends(room: int | None = None) -> tuple[MessageStream[ToSwitch, ToSwitch], MessageStream[ToSwitch, ToSwitch], Side]:
    client, server = pair(room=room)
    return (
        MessageStream(face(client), 0, TO_SWITCH, TO_SWITCH),
        MessageStream(face(server), 0, TO_SWITCH, TO_SWITCH),
        server,
    )


@given(st.integers(1, 40), st.integers(1, 20))
def test_messages_arrive_whatever_the_room(room: int, count: int) -> None:
    out, into, _ = ends(room)
    for number in range(count):
        out.send(Drop(bytes([number])))
    got: list[ToSwitch] = []
    while out.queued or len(got) < count:
        got += into.handle_readable()
        out.handle_writable()
    assert got == [Drop(bytes([number])) for number in range(count)]


def test_a_peer_that_does_not_read_is_at_fault() -> None:
    out, _, _ = ends(room=10)
    message = Drop(bytes(60_000))
    with pytest.raises(WireError):
        for _ in range(SEND_LIMIT // 60_000 + 1):
            out.send(message)


def test_finish_waits_for_what_is_queued() -> None:
    out, into, _ = ends(room=5)
    out.send(DROP)
    out.finish()
    assert not into.finished
    got: list[ToSwitch] = []
    while not into.finished:
        got += into.handle_readable()
        out.handle_writable()
    assert got == [DROP]


def test_raw_bytes_behind_a_message_are_kept() -> None:
    client, server = pair()
    out: MessageStream[OnStream, OnStream] = MessageStream(face(client), 0, ON_STREAM, ON_STREAM)
    into: MessageStream[OnStream, OnStream] = MessageStream(face(server), 0, ON_STREAM, ON_STREAM)
    opening = Open(b"f" * 16, b"grant", "tcp", 80, "10.0.0.1")
    out.send(opening)
    client.write(0, b"GET /" + b"x" * 40_000)
    assert into.handle_readable(at_most=1) == [opening]
    head = into.rest()
    tail = server.read(0, 1 << 20)
    assert head + tail == b"GET /" + b"x" * 40_000
    into.send(Opened())


def test_a_stream_becomes_another_family_without_losing_anything() -> None:
    out, into, _ = ends()
    out.send(Beat())
    out.send(DROP)
    assert into.handle_readable(at_most=1) == [Beat()]
    assert into.become(TO_SWITCH, TO_SWITCH).handle_readable() == [DROP]


def test_a_stream_that_ends_inside_a_message_is_an_error() -> None:
    out, into, _ = ends()
    out._connection.write(0, b"\0\0\0\x09half")
    out.finish()
    with pytest.raises(WireError):
        into.handle_readable()


class Recorder:
    def __init__(self) -> None:
        self.told: list[object] = []

    def handle_readable(self, stream: int, now: float) -> None:
        self.told.append(("readable", stream))

    def handle_writable(self, stream: int, now: float) -> None:
        self.told.append(("writable", stream))

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        raise WireError("it ended")


def test_streams_dispatches_and_returns_the_rest() -> None:
    client, server = pair()
    handler = Recorder()
    streams = Streams(face(server), lambda stream, bidirectional, now: handler if stream == 0 else None)
    client.write(0, b"a")
    client.write(4, b"b")
    others = streams.drain(0.0)
    assert [type(event) for event in others] == [Connected]
    assert handler.told == [("readable", 0)]
    assert StreamStopped(4, Reason.PROTOCOL.code) in client.events
    assert StreamReset(4, Reason.PROTOCOL.code) in client.events


def test_a_handlers_wire_error_closes_the_connection() -> None:
    client, server = pair()
    streams = Streams(face(server), lambda *_: Recorder())
    client.write(0, b"a")
    client.reset(0, 1)
    assert Closed(Reason.PROTOCOL.close_code, "it ended", True) in streams.drain(0.0)
