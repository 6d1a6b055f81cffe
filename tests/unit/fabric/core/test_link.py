"""The beginning of a connection: greeted, or not."""

from __future__ import annotations

from tests.unit.fabric.core.pair import face, pair
from tests.unit.fabric.core.test_streams import Recorder
from warren.fabric.core.link import Link, LinkClosed, LinkReady, greet
from warren.fabric.core.messages.attachment import GREETING, TO_NODE, TO_SWITCH, Greeting
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream


def test_ready_after_handshake_and_greeting() -> None:
    client, server = pair(leaf=b"der")
    link = Link(face(client))
    link.handle_connection(0.0)
    assert link.poll_event() is None
    assert greet(face(server), b"c" * 32, b"b" * 16)
    link.handle_connection(0.0)
    assert link.poll_event() == LinkReady(b"c" * 32, b"b" * 16, b"der")
    assert link.open(TO_NODE, TO_SWITCH, Recorder()) is not None


def test_greeting_before_the_handshake_counts_too() -> None:
    client, server = pair()
    connected = client.events.popleft()
    link = Link(face(client))
    greet(face(server), b"c" * 32, b"b" * 16)
    link.handle_connection(0.0)
    assert link.poll_event() is None
    client.events.append(connected)
    link.handle_connection(0.0)
    assert isinstance(link.poll_event(), LinkReady)


def test_a_bad_greeting_closes() -> None:
    client, server = pair()
    link = Link(face(client))
    stream = server.open_stream(bidirectional=False)
    assert stream is not None
    messages: MessageStream[Greeting, Greeting] = MessageStream(face(server), stream, GREETING, GREETING)
    messages.send(Greeting(b"short", b"b" * 16))
    link.handle_connection(0.0)
    link.handle_connection(0.0)
    closed = link.poll_event()
    assert isinstance(closed, LinkClosed)
    assert closed.code == Reason.PROTOCOL.close_code
