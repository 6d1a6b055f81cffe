"""Streams of one QUIC connection: who handles which, and messages on a control stream.

`Streams` owns a connection's events and gives each stream's to its handler; `MessageStream` is one family's control
stream (or the head of a flow's stream: `Open`, then raw bytes). Pure; whoever uses them obeys the engine's contract:
mutate, drain, re-arm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from warren.fabric.core.engine import (
    Connection,
    Event,
    Readable,
    StreamOpened,
    StreamReset,
    StreamStopped,
    Writable,
)
from warren.fabric.core.errors import WireError
from warren.fabric.core.messages import Codec
from warren.fabric.core.reasons import Reason

READ = 16_384
"""Bytes asked of the engine at a time: one read of messages never holds more than this beyond the longest message."""
SEND_LIMIT = 1 << 20
"""Bytes of messages that wait for a peer that does not read; sixteen of the longest. Beyond, it is the peer's fault."""

In = TypeVar("In", bound=msgspec.Struct)
Out = TypeVar("Out", bound=msgspec.Struct)


class MessageStream(Generic[In, Out]):
    """Messages of one family both ways on one stream; `Codec`s say which. Bounded both ways."""

    def __init__(self, connection: Connection, stream: int, incoming: Codec[In], outgoing: Codec[Out]) -> None:
        self.stream = stream
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        self._in = bytearray()
        self._out = bytearray()
        self._finishing = False

    def send(self, message: Out) -> None:
        """Queues and writes as far as the engine takes. Raises WireError when the peer has not read for too long."""
        waiting = bool(self._out)
        self._out += self._outgoing.encode(message)
        if len(self._out) > SEND_LIMIT:
            raise WireError("the peer does not read its control stream")
        if not waiting:
            self.handle_writable()

    def finish(self) -> None:
        """No message will follow: FIN once everything has been written."""
        self._finishing = True
        self.handle_writable()

    def handle_readable(self, at_most: int | None = None) -> list[In]:
        """The messages that are whole by now, at most so many. Raises WireError, also for a stream that ends in one.

        With `at_most`, what lies behind the last message stays for `rest()` or the next call.
        """
        messages: list[In] = []
        while at_most is None or len(messages) < at_most:
            message = self._incoming.split(self._in)
            if message is not None:
                messages.append(message)
                continue
            data = self._connection.read(self.stream, READ)
            if not data:
                break
            self._in += data
        if self._in and self._connection.finished(self.stream) and at_most is None:
            raise WireError("a stream that ended in the middle of a message")
        return messages

    def handle_writable(self) -> None:
        """Offers the engine what waits."""
        while self._out:
            taken = self._connection.write(self.stream, bytes(self._out[:65_536]))
            del self._out[:taken]
            if taken < 65_536:
                break
        if self._finishing and not self._out:
            self._finishing = False
            self._connection.finish(self.stream)

    def rest(self) -> bytes:
        """Takes the bytes behind the last message: the beginning of what is raw. Read on from the engine after it."""
        data = bytes(self._in)
        self._in.clear()
        return data

    def become(self, incoming: Codec[Any], outgoing: Codec[Any]) -> MessageStream[Any, Any]:
        """The same stream in another family, once the first message told which: nothing read or queued is lost."""
        other: MessageStream[Any, Any] = MessageStream(self._connection, self.stream, incoming, outgoing)
        other._in, other._out, other._finishing = self._in, self._out, self._finishing
        return other

    @property
    def queued(self) -> int:
        """Bytes that the engine has not taken yet."""
        return len(self._out)

    @property
    def finished(self) -> bool:
        """The peer has finished the stream, and everything of it was taken."""
        return not self._in and self._connection.finished(self.stream)


class StreamHandler(Protocol):
    """Who is told about one stream. A WireError raised here ends the connection with Reason.PROTOCOL."""

    def handle_readable(self, stream: int, now: float) -> None: ...

    def handle_writable(self, stream: int, now: float) -> None: ...

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None: ...


Adopt = Callable[[int, bool, float], StreamHandler | None]
"""(stream, bidirectional, now) → who handles a stream that the peer opened; None: it is refused."""


class Streams:
    """Gives each stream's events to the handler registered for it."""

    def __init__(self, connection: Connection, adopt: Adopt | None = None) -> None:
        self.connection = connection
        self._adopt = adopt
        self._handlers: dict[int, StreamHandler] = {}

    def register(self, stream: int, handler: StreamHandler) -> None:
        self._handlers[stream] = handler

    def forget(self, stream: int) -> None:
        """Its events are ignored from now on."""
        self._handlers.pop(stream, None)

    def end(self) -> None:
        """The connection is over: no handler is held any more."""
        self._handlers.clear()
        self._adopt = None

    def drain(self, now: float) -> list[Event]:
        """Polls every event of the connection; returns those that are no stream's, in order."""
        others: list[Event] = []
        while (event := self.connection.poll_event()) is not None:
            try:
                if not self.handle(event, now):
                    others.append(event)
            except WireError as error:
                self.connection.close(Reason.PROTOCOL.close_code, str(error)[:200], now)
        return others

    def handle(self, event: Event, now: float) -> bool:
        """Whether it was a stream's event. Raises what the handler raises."""
        match event:
            case StreamOpened(stream, bidirectional):
                self._opened(stream, bidirectional, now)
            case Readable(stream):
                if handler := self._handlers.get(stream):
                    handler.handle_readable(stream, now)
            case Writable(stream):
                if handler := self._handlers.get(stream):
                    handler.handle_writable(stream, now)
            case StreamReset(stream, _) | StreamStopped(stream, _):
                if handler := self._handlers.get(stream):
                    handler.handle_ended(stream, event, now)
            case _:
                return False
        return True

    def _opened(self, stream: int, bidirectional: bool, now: float) -> None:
        handler = self._adopt(stream, bidirectional, now) if self._adopt else None
        if handler is not None:
            self._handlers[stream] = handler
        else:
            self.refuse(stream, bidirectional)

    def refuse(self, stream: int, bidirectional: bool) -> None:
        """Ends a stream that nobody here handles."""
        self.connection.stop(stream, Reason.PROTOCOL.code)
        if bidirectional:
            self.connection.reset(stream, Reason.PROTOCOL.code)


Then = Callable[[MessageStream[Any, Any], Any, float], StreamHandler | None]
"""(the stream, its first message, now) → who handles it from here on; None: it is refused."""


class FirstMessage:
    """Reads the first message of a stream that the peer opened, to know whose it is. The stream's rest goes to the
    handler that `then` names, which may make the stream its family's by `MessageStream.become`."""

    def __init__(self, streams: Streams, stream: int, codec: Codec[Any], then: Then) -> None:
        """`codec`: of the union of all first messages."""
        self._streams = streams
        self._messages: MessageStream[Any, Any] = MessageStream(streams.connection, stream, codec, codec)
        self._then = then

    def handle_readable(self, stream: int, now: float) -> None:
        messages = self._messages.handle_readable(at_most=1)
        if messages:
            self._hand_over(stream, messages[0], now)
        elif self._streams.connection.finished(stream):
            raise WireError("a stream without a message")

    def handle_writable(self, stream: int, now: float) -> None:
        self._messages.handle_writable()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        self._streams.forget(stream)

    def _hand_over(self, stream: int, message: Any, now: float) -> None:
        handler = self._then(self._messages, message, now)
        if handler is None:
            self._streams.forget(stream)
            self._streams.refuse(stream, True)
            return
        self._streams.register(stream, handler)
        handler.handle_readable(stream, now)
