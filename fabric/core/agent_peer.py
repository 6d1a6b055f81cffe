"""The calling end of a peer connection: proves the device key, opens flows, asks for names (see peer.py)."""

from __future__ import annotations

from collections.abc import Callable

from warren.fabric.core.credit import Budget
from warren.fabric.core.engine import Connection, DatagramsReceived, StreamReset, StreamStopped
from warren.fabric.core.errors import WireError
from warren.fabric.core.flow import Flow
from warren.fabric.core.link import Link, LinkClosed, LinkReady
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
from warren.fabric.core.peer import (
    RESOLVES,
    Control,
    FlowOpened,
    FlowRefused,
    FlowUnreachable,
    Peer,
    PeerReady,
    ResolveAnswered,
)
from warren.fabric.core.printable import printable
from warren.fabric.core.reasons import Reason


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
                    self._take_datagrams()
        self._offer()

    def _prove(self, challenge: bytes, leaf: bytes) -> None:
        self.control = self._link.open(TO_AGENT, TO_CONNECTOR, Control(self, self._on_control))
        if self.control is None:
            self.connection.close(Reason.PROTOCOL.close_code, "the connector allows no stream", self._now)
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
            case Unreachable(flow, reason):
                if flow in self.flows:
                    self._events.append(FlowUnreachable(self.flows[flow], Reason.of(reason)))
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
                self.connection.stop(flow.stream, Reason.CANCELLED.code)  # what follows is not kept
                self._remove(flow)
            case _:
                raise WireError("an Open from a connector")

    def _unopened(self, flow: Flow, event: StreamReset | StreamStopped) -> None:
        self._refused(flow, Reason.PEER_GONE, "")
        self._remove(flow)

    def _lost_opening(self, flow: Flow) -> None:
        self._refused(flow, Reason.PEER_GONE, "")

    def _refused(self, flow: Flow, reason: Reason, detail: str) -> None:
        self._events.append(FlowRefused(flow, reason, printable(detail)))

    def _forget_stream(self, stream: int) -> None:
        self._link.forget(stream)
