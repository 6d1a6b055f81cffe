"""An end-to-end connection between agent and connector, over whichever circuit leads: proof, flows, credit, names.

Both ends are here, since they share all but the beginning: `AgentPeer` calls, proves its device key and opens flows;
`ConnectorPeer` answers, and is asked to open them. Grants are not looked at here (connector/gate.py), paths neither
(fabric/aio/node.py). Specified in protocol.md, section 5. After anything was done to the connection or to a flow:
`handle_connection(now)`, drain `poll_event`, then the engine's `transmit`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from warren.fabric.core.credit import Budget
from warren.fabric.core.engine import (
    Buffer,
    Closed,
    Connected,
    Connection,
    DatagramsReceived,
    StreamReset,
    StreamStopped,
)
from warren.fabric.core.errors import WireError
from warren.fabric.core.flow import Ending, Flow
from warren.fabric.core.link import Link, LinkClosed, LinkReady, greet
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
)
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream, StreamHandler, Streams

READ = 1 << 20
"""Bytes taken from the engine at a time; credit bounds how many there can be."""
PROOF_TIME = 10.0
"""Seconds that handshake and proof may take together."""
RESOLVES = 256
"""Questions for the private resolver under way on one connection; a browser asks for a dozen at once."""
MEASURE_EVERY = 0.1
"""Seconds between two looks at the engine's round trip."""


class PeerReady(NamedTuple):
    """Both ends are proved; flows may open."""


class PeerClosed(NamedTuple):
    """Over, with all its flows. `reason` of this end's or the other's; `detail` for the log."""

    reason: Reason
    detail: str
    ours: bool


class FlowAsked(NamedTuple):
    """Connector: the agent asks for this. Answer with `opened` or `refuse`."""

    flow: Flow
    message: Open


class FlowOpened(NamedTuple):
    flow: Flow
    address: str


class FlowRefused(NamedTuple):
    flow: Flow
    reason: Reason
    detail: str


class FlowCancelled(NamedTuple):
    """Connector: the agent gave up before it was opened."""

    flow: Flow


class FlowReadable(NamedTuple):
    """`flow.read` has something, or `flow.ended` says how it ended."""

    flow: Flow


class FlowWritable(NamedTuple):
    flow: Flow


class ResolveAsked(NamedTuple):
    """Connector: answer with `resolved`."""

    request: int
    grant: bytes
    message: bytes


class ResolveAnswered(NamedTuple):
    request: int
    message: bytes
    reason: Reason | None


PeerEvent = (
    PeerReady
    | PeerClosed
    | FlowAsked
    | FlowOpened
    | FlowRefused
    | FlowCancelled
    | FlowReadable
    | FlowWritable
    | ResolveAsked
    | ResolveAnswered
)


class Peer:
    """What both ends share. Not to be made by itself."""

    control: MessageStream[Any, Any] | None

    def __init__(self, connection: Connection, now: float, budget: Budget) -> None:
        self.connection = connection
        self.flows: dict[bytes, Flow] = {}
        self.ready = False
        self.closed = False
        self.control = None
        self._budget = budget
        self._streams: dict[int, Flow] = {}
        self._events: deque[PeerEvent] = deque()
        self._prove_by = now + PROOF_TIME
        self._now = now
        self._measured_at = -1.0
        self._round_trip = 0.0

    # ---- for the owner ----

    def poll_event(self) -> PeerEvent | None:
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called (the engine's own timer is apart)."""
        return None if self.ready or self.closed else self._prove_by

    def handle_timeout(self, now: float) -> None:
        if not self.ready and not self.closed and now >= self._prove_by:
            self.connection.close(Reason.TIMED_OUT.code, "no proof in time", now)

    def close(self, reason: Reason, now: float) -> None:
        if not self.closed:
            self.connection.close(reason.code, reason.word, now)

    # ---- for flows ----

    def write(self, flow: Flow, data: Buffer) -> int:
        return self.connection.write(flow.stream, data)

    def tell_credit(self, flow: Flow, offset: int) -> None:
        self._tell(Credit(flow.id, offset))

    def _tell(self, message: ToAgent | ToConnector) -> None:
        """Says something on the control stream; a peer that does not read it costs itself the connection."""
        if self.control is None or self.closed:
            return
        try:
            self.control.send(message)
        except WireError as error:
            self.connection.close(Reason.PROTOCOL.code, str(error), self._now)

    def tell_end(self, flow: Flow, how: Ending) -> None:
        """The flow's owner has ended our direction; a reset also stops the other one."""
        if not self.closed:
            self._tell(Ended(flow.id, how, flow.allowance.sent))
            self.connection.finish(flow.stream)
            if how == "reset":
                self.connection.stop(flow.stream, Reason.CANCELLED.code)
        if how == "reset":
            flow.discard()
        self._look_over(flow)

    def round_trip(self) -> float:
        """Seconds, smoothed; at most a tenth of a second old."""
        if self._now - self._measured_at >= MEASURE_EVERY:
            self._measured_at = self._now
            self._round_trip = self.connection.statistics().round_trip
        return self._round_trip

    def settled(self, flow: Flow) -> None:
        """The owner has read the flow's end: forget it if both directions are over."""
        self._look_over(flow)

    # ---- streams ----

    def handle_readable(self, stream: int, now: float) -> None:
        """Takes everything at once, so that neither engine holds what credit was given for (and a flood is seen)."""
        flow = self._streams.get(stream)
        if flow is None:
            return
        if flow.head is not None and not self._read_head(flow):
            return
        while data := self.connection.read(stream, READ):
            self._arrived(flow, data)
        self._look_over(flow)

    def _read_head(self, flow: Flow) -> bool:
        assert flow.head is not None
        messages = flow.head.handle_readable(at_most=1)
        if not messages:
            if self.connection.finished(flow.stream):
                raise WireError("a flow's stream that ended before its first message")
            return False
        rest, flow.head = flow.head.rest(), None
        self._headed(flow, messages[0])
        if rest:
            self._arrived(flow, rest)
        return flow.id in self.flows

    def _headed(self, flow: Flow, message: Open | Opened | Refused) -> None:
        raise NotImplementedError

    def _arrived(self, flow: Flow, data: bytes) -> None:
        if flow.wrote == "reset":
            return
        flow.arrived(data)
        self._readable(flow)

    def _readable(self, flow: Flow) -> None:
        if flow.armed and flow.opened:
            flow.armed = False
            self._events.append(FlowReadable(flow))

    def handle_writable(self, stream: int, now: float) -> None:
        flow = self._streams.get(stream)
        if flow is not None:
            self._writable(flow)

    def _writable(self, flow: Flow) -> None:
        if flow.write_wanted:
            flow.write_wanted = False
            self._events.append(FlowWritable(flow))

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        flow = self._streams.get(stream)
        if flow is None:
            return
        if not flow.opened:
            self._unopened(flow, event)
        elif isinstance(event, StreamReset) and flow.ended is None:
            flow.lost()
            self._events.append(FlowReadable(flow))

    def _unopened(self, flow: Flow, event: StreamReset | StreamStopped) -> None:
        raise NotImplementedError

    # ---- the control stream ----

    def _credited(self, message: Credit) -> None:
        flow = self.flows.get(message.flow)
        if flow is not None and flow.allowance.raise_to(message.offset):
            self._writable(flow)

    def _ended(self, message: Ended) -> None:
        flow = self.flows.get(message.flow)
        if flow is None or flow.wrote == "reset":
            return
        flow.far_end(message.how, message.offset)
        if flow.opened:
            flow.armed = False
            self._events.append(FlowReadable(flow))

    # ---- beginnings and ends ----

    def _add(self, flow: Flow) -> None:
        self.flows[flow.id] = flow
        self._streams[flow.stream] = flow

    def _remove(self, flow: Flow) -> None:
        if self.flows.pop(flow.id, None) is not None:
            self._streams.pop(flow.stream, None)
            flow.window.close()
            self._forget_stream(flow.stream)

    def _forget_stream(self, stream: int) -> None:
        raise NotImplementedError

    def _look_over(self, flow: Flow) -> None:
        if flow.over:
            self._remove(flow)

    def _close(self, code: int, detail: str, ours: bool) -> None:
        if self.closed:
            return
        self.closed = True
        reason = Reason.of(code) if code else Reason.PEER_GONE
        for flow in list(self.flows.values()):
            if flow.opened:
                flow.lost()
                self._events.append(FlowReadable(flow))
            else:
                self._lost_opening(flow)
            self._remove(flow)
        self._events.append(PeerClosed(reason, detail, ours))

    def _lost_opening(self, flow: Flow) -> None:
        raise NotImplementedError


class AgentPeer(Peer):
    """The calling end."""

    def __init__(
        self,
        connection: Connection,
        now: float,
        budget: Budget,
        peer_id: bytes,
        sign: Callable[[bytes, bytes], tuple[bytes, bytes]],
    ) -> None:
        """`peer_id`: 16 random bytes, as the switch is told. `sign(challenge, leaf DER)` → (device key, signature)."""
        super().__init__(connection, now, budget)
        self.id = peer_id
        self._sign = sign
        self._link = Link(connection)
        self._requests: set[int] = set()

    def open(self, flow_id: bytes, grant: bytes, message: Open) -> Flow | None:
        """A new flow, asked for; FlowOpened or FlowRefused follows. None: no more streams now (use another peer)."""
        if not self.ready or self.closed:
            return None
        head = self._link.open(ON_STREAM, ON_STREAM, self)
        if head is None:
            return None
        flow = Flow(self, flow_id, head.stream, self._budget)
        flow.head = head
        self._add(flow)
        head.send(message)
        return flow

    def cancel(self, flow: Flow) -> None:
        """The app gave up before the flow was opened."""
        if flow.id in self.flows:
            self.connection.reset(flow.stream, Reason.CANCELLED.code)
            self.connection.stop(flow.stream, Reason.CANCELLED.code)
            self._remove(flow)

    def resolve(self, request: int, grant: bytes, message: bytes) -> bool:
        """Asks the connector's resolver; ResolveAnswered follows. False: too many under way, or not ready."""
        if not self.ready or self.closed or self.control is None or len(self._requests) >= RESOLVES:
            return False
        self._requests.add(request)
        self._tell(Resolve(request, grant, message))
        return True

    def handle_connection(self, now: float) -> None:
        self._now = now
        self._link.handle_connection(now)
        while (event := self._link.poll_event()) is not None:
            match event:
                case LinkReady(challenge, _, leaf):
                    self._prove(challenge, leaf)
                case LinkClosed(code, detail, ours):
                    self._close(code, detail, ours)
                case DatagramsReceived():
                    pass

    def _prove(self, challenge: bytes, leaf: bytes) -> None:
        self.control = self._link.open(TO_AGENT, TO_CONNECTOR, _Control(self, self._on_control))
        if self.control is None:
            self.connection.close(Reason.PROTOCOL.code, "the connector allows no stream", self._now)
            return
        key, signature = self._sign(challenge, leaf)
        self._tell(Prove(key, signature, self.id))

    def _on_control(self, message: ToAgent | ToConnector) -> None:
        match message:
            case Proved() if not self.ready:
                self.ready = True
                self._events.append(PeerReady())
            case Refused(reason, detail):
                raise WireError(f"{Reason.of(reason).text} {detail}")
            case Credit():
                self._credited(message)
            case Ended():
                self._ended(message)
            case Resolved(request, answer, reason) if request in self._requests:
                self._requests.discard(request)
                self._events.append(ResolveAnswered(request, answer, Reason.of(reason) if reason else None))
            case _:
                raise WireError(f"{type(message).__name__} is not for an agent now")

    def _headed(self, flow: Flow, message: Open | Opened | Refused) -> None:
        match message:
            case Opened(address):
                flow.opened = True
                self._events.append(FlowOpened(flow, address))
            case Refused(reason, detail):
                self._refused(flow, Reason.of(reason), detail)
                self.connection.finish(flow.stream)
                self._remove(flow)
            case _:
                raise WireError("an Open from a connector")

    def _unopened(self, flow: Flow, event: StreamReset | StreamStopped) -> None:
        self._refused(flow, Reason.PEER_GONE, "")
        self._remove(flow)

    def _lost_opening(self, flow: Flow) -> None:
        self._refused(flow, Reason.PEER_GONE, "")

    def _refused(self, flow: Flow, reason: Reason, detail: str) -> None:
        self._events.append(FlowRefused(flow, reason, detail))

    def _forget_stream(self, stream: int) -> None:
        self._link.forget(stream)


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

    def _answer(self, flow: Flow, message: Opened | Refused) -> None:
        """The first thing written on the stream, so that the engine always has room for it."""
        head = MessageStream(self.connection, flow.stream, ON_STREAM, ON_STREAM)
        head.send(message)

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

    def _greet(self) -> None:
        if not self._greeted:
            self._greeted = greet(self.connection, *self._greeting)

    def _adopt(self, stream: int, bidirectional: bool, now: float) -> StreamHandler | None:
        if not bidirectional or (self.control is not None and not self.ready):
            return None
        if self.control is None:
            self.control = MessageStream(self.connection, stream, TO_CONNECTOR, TO_AGENT)
            return _Control(self, self._on_control)
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
            self.connection.close(reason.code, reason.word, self._now)
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


class _Control:
    """The control stream's events, apart from those of flows."""

    def __init__(self, peer: Peer, take: Callable[[ToAgent | ToConnector], None]) -> None:
        self._peer = peer
        self._take = take

    def handle_readable(self, stream: int, now: float) -> None:
        control = self._peer.control
        assert control is not None
        for message in control.handle_readable():
            self._take(message)
        if control.finished:
            raise WireError("the control stream has ended")

    def handle_writable(self, stream: int, now: float) -> None:
        assert self._peer.control is not None
        self._peer.control.handle_writable()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        raise WireError("the control stream was reset")
