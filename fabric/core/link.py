"""The two ends of one QUIC connection's beginning: a greeting with a challenge, then control streams, one a family.

Who answers greets on a unidirectional stream (`greet`); who called waits for it (`Link`) and then opens what it needs.
Attachment and session share a link while judge and switch are one process; a peer connection has one of its own.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from warren.fabric.core.engine import (
    Closed,
    Connected,
    Connection,
    DatagramsReceived,
    StreamReset,
    StreamStopped,
)
from warren.fabric.core.errors import WireError
from warren.fabric.core.messages import Codec
from warren.fabric.core.messages.attachment import GREETING, Greeting
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import Adopt, MessageStream, StreamHandler, Streams

CHALLENGE = 32
BOOT = 16


class LinkReady(NamedTuple):
    """Handshake done and greeted: families may open their streams. `leaf`: DER of the certificate to sign over."""

    challenge: bytes
    boot: bytes
    leaf: bytes


class LinkClosed(NamedTuple):
    """The connection is over. `code`: a Reason's, or the transport's. `ours`: this side ended it."""

    code: int
    reason: str
    ours: bool


LinkEvent = LinkReady | LinkClosed | DatagramsReceived


class State(enum.Enum):
    CALLING = "calling"
    READY = "ready"
    CLOSED = "closed"


_EDGES = {
    State.CALLING: {State.READY, State.CLOSED},
    State.READY: {State.CLOSED},
    State.CLOSED: set[State](),
}


def greet(connection: Connection, challenge: bytes, boot: bytes) -> bool:
    """Sends the greeting on a stream of its own; False while the engine opens none yet (again after `Connected`)."""
    stream = connection.open_stream(bidirectional=False)
    if stream is None:
        return False
    messages: MessageStream[Greeting, Greeting] = MessageStream(connection, stream, GREETING, GREETING)
    messages.send(Greeting(challenge, boot))
    messages.finish()
    return True


class Link:
    """The caller's side of one connection. After anything was done to the connection: `handle_connection(now)`."""

    def __init__(self, connection: Connection, adopt: Adopt | None = None) -> None:
        """`adopt`: for streams that the other side opens besides the greeting (none: they are refused)."""
        self.connection = connection
        self.state = State.CALLING
        self.ready: LinkReady | None = None
        self._adopt = adopt
        self._streams = Streams(connection, self._opened)
        self._greeting: MessageStream[Greeting, Greeting] | None = None
        self._greeted: Greeting | None = None
        self._leaf: bytes | None = None
        self._events: list[LinkEvent] = []

    def handle_connection(self, now: float) -> None:
        """Drains the connection's events: to stream handlers, and into `poll_event`."""
        for event in self._streams.drain(now):
            match event:
                case Connected(_, certificate):
                    self._leaf = certificate or b""
                case Closed(code, reason, ours):
                    self._enter(State.CLOSED)
                    self._events.append(LinkClosed(code, reason, ours))
                    self._streams.end()
                case DatagramsReceived():
                    self._events.append(event)
            self._look()

    def poll_event(self) -> LinkEvent | None:
        return self._events.pop(0) if self._events else None

    def open(
        self, incoming: Codec[Any], outgoing: Codec[Any], handler: StreamHandler
    ) -> MessageStream[Any, Any] | None:
        """A bidirectional stream of one family, its events going to `handler`; None while the peer allows no more."""
        stream = self.connection.open_stream()
        if stream is None:
            return None
        self._streams.register(stream, handler)
        return MessageStream(self.connection, stream, incoming, outgoing)

    def register(self, stream: int, handler: StreamHandler) -> None:
        """Another handler for a stream that is open (a flow's, once its head was read)."""
        self._streams.register(stream, handler)

    def forget(self, stream: int) -> None:
        self._streams.forget(stream)

    def leave(self, stream: int) -> None:
        """All that counts was read: what else comes, a late FIN too, is kept by nobody."""
        self.connection.stop(stream, Reason.CANCELLED.code)
        self._streams.forget(stream)

    # the greeting's stream

    def handle_readable(self, stream: int, now: float) -> None:
        if self._greeting is None or self._greeted is not None:
            return
        messages = self._greeting.handle_readable()
        if not messages:
            return
        greeting = messages[0]
        if len(greeting.challenge) != CHALLENGE or len(greeting.boot) != BOOT:
            raise WireError("a greeting with a challenge or boot id of a wrong length")
        self._greeted = greeting
        self._look()

    def handle_writable(self, stream: int, now: float) -> None:
        pass

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        if self._greeted is None:
            raise WireError("the greeting was reset")

    def _opened(self, stream: int, bidirectional: bool, now: float) -> StreamHandler | None:
        if self._greeting is None and not bidirectional:
            self._greeting = MessageStream(self.connection, stream, GREETING, GREETING)
            return self
        return self._adopt(stream, bidirectional, now) if self._adopt else None

    def _look(self) -> None:
        if self.state is State.CALLING and self._leaf is not None and self._greeted is not None:
            self.ready = LinkReady(self._greeted.challenge, self._greeted.boot, self._leaf)
            self._enter(State.READY)
            self._events.append(self.ready)

    def _enter(self, state: State) -> None:
        if state not in _EDGES[self.state]:
            raise RuntimeError(f"a link went from {self.state} to {state}")
        self.state = state
