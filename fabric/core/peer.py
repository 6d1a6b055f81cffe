"""An end-to-end connection between agent and connector, over whichever circuit leads: proof, flows, credit, names.

Here is what both ends share, all but the beginning: `AgentPeer` (agent_peer.py) calls, proves its device key and opens
flows; `ConnectorPeer` (connector_peer.py) answers, and is asked to open them. Grants are not looked at here
(connector/gate.py), paths neither (fabric/aio/circuits.py). Specified in docs/protocol.md. After anything was done to
the connection or to a flow: `handle_connection(now)`, drain `poll_event`, then the engine's `transmit`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from warren.fabric.core.credit import Budget
from warren.fabric.core.datagrams import Assembly, Turns, header_room, split
from warren.fabric.core.engine import (
    Buffer,
    Connection,
    StreamReset,
    StreamStopped,
)
from warren.fabric.core.errors import WireError
from warren.fabric.core.flow import Ending, Flow
from warren.fabric.core.messages.peer import (
    Credit,
    Ended,
    Open,
    Opened,
    Refused,
    ToAgent,
    ToConnector,
)
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream

READ = 256 << 10
"""Bytes taken from the engine at a time, as many as a socket is given at a time: a larger piece would be cut, and what
is left of it copied. Credit bounds how many there can be."""
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


class DatagramArrived(NamedTuple):
    """A whole datagram of a UDP or ICMP flow."""

    flow: Flow
    payload: bytes


class FlowUnreachable(NamedTuple):
    """Agent: the origin of a UDP flow answered that it is not there. The flow goes on."""

    flow: Flow
    reason: Reason


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
    | DatagramArrived
    | FlowUnreachable
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
        self.turns = Turns()
        self.assembly = Assembly()
        self._packet = 0
        self._round_trip = 0.0

    # ---- for the owner ----

    def poll_event(self) -> PeerEvent | None:
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called (the engine's own timer is apart)."""
        return None if self.ready or self.closed else self._prove_by

    def handle_timeout(self, now: float) -> None:
        if not self.ready and not self.closed and now >= self._prove_by:
            self.connection.close(Reason.TIMED_OUT.close_code, "no proof in time", now)

    def close(self, reason: Reason, now: float) -> None:
        if not self.closed:
            self.connection.close(reason.close_code, reason.word, now)

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
            self.connection.close(Reason.PROTOCOL.close_code, str(error), self._now)

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

    # ---- datagrams ----

    def datagram_room(self) -> int:
        """Payload of a datagram that goes unfragmented now; 0: this connection carries none."""
        return header_room(self.connection.datagram_room())

    def send_datagram(self, flow: Flow, payload: Buffer) -> bool:
        """Queues one datagram of a flow, in fragments if it has to be; False if it was dropped (and counted)."""
        self._packet += 1
        number = flow.stream >> 2
        parts = split(number, payload, self.connection.datagram_room(), self._packet)
        return bool(parts) and self.turns.add(number, parts)

    @property
    def waiting(self) -> bool:
        """Whether datagrams wait for room in the engine."""
        return bool(self.turns)

    def _offer(self) -> bool:
        """Gives the engine what it takes of the datagrams whose turn it is."""
        return bool(self.turns) and self.turns.send(self._offer_one)

    def _offer_one(self, part: bytes) -> bool:
        if len(part) > self.connection.datagram_room():
            self.turns.dropped += 1  # the path has shrunk since it was cut
            return True
        return self.connection.send_datagram(part)

    def _take_datagrams(self) -> None:
        while (data := self.connection.read_datagram()) is not None:
            whole = self.assembly.take(data, self._now)
            flow = self._streams.get(whole[0] << 2) if whole is not None else None
            if whole is not None and flow is not None and flow.opened:
                self._events.append(DatagramArrived(flow, whole[1]))

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
            self.turns.forget(flow.stream >> 2)
            flow.window.close()
            self._forget_stream(flow.stream)
            if flow.opened:  # all that counts was read: what else comes, a late FIN too, is kept by nobody
                self.connection.stop(flow.stream, Reason.CANCELLED.code)

    def _forget_stream(self, stream: int) -> None:
        raise NotImplementedError

    def _look_over(self, flow: Flow) -> None:
        if flow.over:
            self._remove(flow)

    def _close(self, code: int, detail: str, ours: bool) -> None:
        if self.closed:
            return
        self.closed = True
        reason = Reason.of_close(code)
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


class Control:
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
