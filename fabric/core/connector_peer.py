"""The answering end of a peer connection: checks the agent's proof, is asked to open flows and names (see peer.py)."""

from __future__ import annotations

from collections.abc import Callable

from warren.fabric.core.credit import Budget
from warren.fabric.core.engine import Closed, Connected, Connection, DatagramsReceived, StreamReset, StreamStopped
from warren.fabric.core.errors import WireError
from warren.fabric.core.flow import Flow
from warren.fabric.core.link import greet
from warren.fabric.core.messages.peer import (
    ON_STREAM,
    TO_AGENT,
    TO_CONNECTOR,
    Credit,
    Ended,
    Open,
    Opened,
    Prove,
    Proved,
    Refused,
    Resolve,
    Resolved,
    ToAgent,
    ToConnector,
    Unreachable,
)
from warren.fabric.core.peer import Control, FlowAsked, FlowCancelled, Peer, PeerReady, ResolveAsked
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream, StreamHandler, Streams


class ConnectorPeer(Peer):
    """The answering end."""

    def __init__(
        self,
        connection: Connection,
        now: float,
        budget: Budget,
        greeting: tuple[bytes, bytes],
        prove: Callable[[Prove, bytes], Reason | None],
    ) -> None:
        """`greeting`: (challenge, boot id). `prove(message, challenge)` → None, or why the proof does not hold."""
        super().__init__(connection, now, budget)
        self.key = b""
        """The agent's device key, once proved."""
        self._greeting = greeting
        self._prove = prove
        self._streams_of = Streams(connection, self._adopt)
        self._greeted = False

    def opened(self, flow: Flow, address: str) -> None:
        """The origin has accepted: from now on bytes flow."""
        if flow.id in self.flows:
            flow.opened = True
            self._answer(flow, Opened(address))
            if flow.buffered or flow.ended:
                self._readable(flow)

    def refuse(self, flow: Flow, reason: Reason, detail: str = "") -> None:
        if flow.id in self.flows:
            self._answer(flow, Refused(reason.code, detail))
            self.connection.finish(flow.stream)
            self._remove(flow)
            self._streams_of.register(flow.stream, _Unwanted(self._streams_of))

    def _answer(self, flow: Flow, message: Opened | Refused) -> None:
        """The first thing written on the stream, so that the engine always has room for it."""
        head = MessageStream(self.connection, flow.stream, ON_STREAM, ON_STREAM)
        head.send(message)

    def unreachable(self, flow: Flow, reason: Reason) -> None:
        """The origin of a UDP flow says that it is not there."""
        self._tell(Unreachable(flow.id, reason.code))

    def resolved(self, request: int, message: bytes, reason: Reason | None = None) -> None:
        self._tell(Resolved(request, message, reason.code if reason else 0))

    def handle_connection(self, now: float) -> None:
        self._now = now
        for event in self._streams_of.drain(now):
            match event:
                case Connected():
                    self._greet()
                case Closed(code, detail, ours):
                    self._close(code, detail, ours)
                    self._streams_of.end()
                case DatagramsReceived():
                    self._take_datagrams()
        self._offer()

    def _greet(self) -> None:
        if not self._greeted:
            self._greeted = greet(self.connection, *self._greeting)

    def _adopt(self, stream: int, bidirectional: bool, now: float) -> StreamHandler | None:
        if not bidirectional or (self.control is not None and not self.ready):
            return None
        if self.control is None:
            self.control = MessageStream(self.connection, stream, TO_CONNECTOR, TO_AGENT)
            return Control(self, self._on_control)
        flow = Flow(self, b"", stream, self._budget)
        flow.head = MessageStream(self.connection, stream, ON_STREAM, ON_STREAM)
        self._streams[stream] = flow
        return self

    def _on_control(self, message: ToAgent | ToConnector) -> None:
        match message:
            case Prove() if not self.ready:
                self._proved(message)
            case _ if not self.ready:
                raise WireError("something else before the proof")
            case Credit():
                self._credited(message)
            case Ended():
                self._ended(message)
            case Resolve(request, grant, query):
                self._events.append(ResolveAsked(request, grant, query))
            case _:
                raise WireError(f"{type(message).__name__} is not for a connector now")

    def _proved(self, message: Prove) -> None:
        reason = self._prove(message, self._greeting[0])
        if reason is not None:
            self.connection.close(reason.close_code, reason.word, self._now)
            return
        assert self.control is not None
        self.key = message.key
        self.ready = True
        self.control.send(Proved())
        self._events.append(PeerReady())

    def _headed(self, flow: Flow, message: Open | Opened | Refused) -> None:
        if not isinstance(message, Open):
            raise WireError("an answer from an agent")
        if len(message.flow) != 16 or message.flow in self.flows:
            raise WireError("a flow id that is not 16 bytes, or is in use")
        flow.id = message.flow
        self._add(flow)
        self._events.append(FlowAsked(flow, message))

    def _unopened(self, flow: Flow, event: StreamReset | StreamStopped) -> None:
        self._streams.pop(flow.stream, None)
        self._forget_stream(flow.stream)
        self.connection.reset(flow.stream, Reason.CANCELLED.code)
        self.connection.stop(flow.stream, Reason.CANCELLED.code)
        if self.flows.get(flow.id) is flow:
            self._lost_opening(flow)
            self._remove(flow)

    def _lost_opening(self, flow: Flow) -> None:
        self._events.append(FlowCancelled(flow))

    def _forget_stream(self, stream: int) -> None:
        self._streams_of.forget(stream)


class _Unwanted:
    """What comes on the stream of a refused flow is not kept. (To stop it before anything comes could overtake the
    reason; an honest agent says nothing more but its end.)"""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def handle_readable(self, stream: int, now: float) -> None:
        self._streams.connection.stop(stream, Reason.CANCELLED.code)
        self._streams.forget(stream)

    def handle_writable(self, stream: int, now: float) -> None:
        pass

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        self._streams.forget(stream)
