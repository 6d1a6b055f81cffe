"""A node before the judge: decisions, DNS, what may be captured; nothing of circuits. Pure.

`AgentSession`, `ConnectorSession` and `Enrolment` are the caller's halves, on a `Link` that the attachment may share;
the judge's half is edge/judge/sessions.py. Each is opened once the link is ready and lives as long as it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Literal, NamedTuple

from warren.fabric.core.engine import StreamReset, StreamStopped
from warren.fabric.core.errors import WireError
from warren.fabric.core.link import Link, LinkReady
from warren.fabric.core.messages.session import (
    ENROL_LABEL,
    LABEL,
    TO_JUDGE,
    TO_NODE,
    Answer,
    Choose,
    Chosen,
    Decide,
    Denied,
    Edges,
    Enrol,
    Enrolled,
    Enter,
    Granted,
    Health,
    Holding,
    HostRoute,
    Network,
    Protocol,
    Query,
    Refused,
    Revoked,
    ToJudge,
    ToNode,
    Welcome,
)
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream

DECISIONS = 4096
"""Decisions under way at once: a scan of a thousand ports asks a thousand."""
CHOICES = 4
"""Choices of a virtual network under way at once: a person makes them."""
QUERIES = 64
"""DNS queries under way at once, below the engine's limit of streams so that other families still get theirs."""

HELD_AT_ONCE = 1_000
"""Ids in one `Holding`, of 32 bytes or so: half of the longest message."""

Sign = Callable[[bytes, bytes, bytes], bytes]
"""(label, challenge, leaf DER) → signature."""


class SessionReady(NamedTuple):
    """The judge has accepted us. `welcome` is None for agents (a `NetworkChanged` follows)."""

    welcome: Welcome | None


class SessionRefused(NamedTuple):
    reason: Reason
    detail: str


class NetworkChanged(NamedTuple):
    network: Network


class Decided(NamedTuple):
    """The answer to `decide`: a grant, or a reason."""

    request: int
    granted: Granted | None
    reason: Reason
    detail: str


class NetworkChosen(NamedTuple):
    """The answer to `choose`: None if it is done, else why not."""

    request: int
    reason: Reason | None
    detail: str


class Answered(NamedTuple):
    """The answer to `query`: a DNS message, a hostname route, or nothing (the judge is gone or broke the stream)."""

    request: int
    answer: Answer | HostRoute | None


class EnrolmentDone(NamedTuple):
    device: str
    name: str


class RevocationsTold(NamedTuple):
    revoked: Revoked


class EdgesTold(NamedTuple):
    signed: bytes


SessionEvent = (
    SessionReady
    | SessionRefused
    | NetworkChanged
    | NetworkChosen
    | EdgesTold
    | Decided
    | Answered
    | EnrolmentDone
    | RevocationsTold
)


class Session:
    """What the three share: a control stream, and events."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._events: deque[SessionEvent] = deque()
        self._control: MessageStream[Any, Any] | None = None
        self.ready = False

    def poll_event(self) -> SessionEvent | None:
        return self._events.popleft() if self._events else None

    def _open(self, message: ToJudge) -> None:
        self._control = self._link.open(TO_NODE, TO_JUDGE, self)
        if self._control is None:
            raise WireError("the edge allows no stream for a session")
        self._control.send(message)

    def _send(self, message: ToJudge) -> None:
        if self._control is not None:
            self._control.send(message)

    def handle_readable(self, stream: int, now: float) -> None:
        assert self._control is not None
        for message in self._control.handle_readable():
            self._take(message)

    def handle_writable(self, stream: int, now: float) -> None:
        assert self._control is not None
        self._control.handle_writable()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        raise WireError("the session's control stream was reset")

    def _take(self, message: ToNode) -> None:
        match message:
            case Refused(reason, detail):
                self._events.append(SessionRefused(Reason.of(reason), detail))
            case Edges(signed):
                self._events.append(EdgesTold(signed))
            case _:
                raise WireError(f"{type(message).__name__} is not expected here")


class Enrolment(Session):
    """Brings a device in: the secret of an enrolment key, once."""

    def start(self, ready: LinkReady, secret: bytes, key: bytes, sign: Sign, host: str) -> None:
        """`key`: the device's public key. EnrolmentDone or SessionRefused follows. Raises WireError."""
        self._open(Enrol(secret, key, sign(ENROL_LABEL, ready.challenge, ready.leaf), host))

    def _take(self, message: ToNode) -> None:
        if isinstance(message, Enrolled):
            self._events.append(EnrolmentDone(message.device, message.name))
        else:
            super()._take(message)


class ConnectorSession(Session):
    """A connector before the judge."""

    def start(self, ready: LinkReady, enter: Enter) -> None:
        """`enter` is complete, signature included. Raises WireError."""
        self._open(enter)

    def health(self, flows: int, draining: bool) -> None:
        """The beat of a connector, once a second. Raises WireError."""
        if self.ready:
            self._send(Health(flows, draining))

    def holding(self, ids: Iterable[str]) -> None:
        """What its flows stand on; `RevocationsTold` follows for what is no more. Raises WireError."""
        pending = iter(ids)
        while some := tuple(islice(pending, HELD_AT_ONCE)):
            self._send(Holding(some))

    def _take(self, message: ToNode) -> None:
        if isinstance(message, Welcome):
            self.ready = True
            self._events.append(SessionReady(message))
        elif isinstance(message, Revoked) and self.ready:
            self._events.append(RevocationsTold(message))
        else:
            super()._take(message)


class AgentSession(Session):
    """A device before the judge."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._next = 1
        self._deciding: set[int] = set()
        self._choosing: set[int] = set()
        self._queries: dict[int, tuple[int, MessageStream[Any, Any]]] = {}

    def start(self, ready: LinkReady, enter: Enter) -> None:
        """`enter` is complete, signature included. Raises WireError."""
        self._open(enter)

    def decide(
        self, protocol: Protocol, port: int, *, address: str = "", host: str = "", resolver: str = ""
    ) -> int | None:
        """Asks whether a flow may open; `Decided` follows with the number returned. None: not now (no session, or
        too many under way)."""
        if not self.ready or len(self._deciding) >= DECISIONS:
            return None
        request, self._next = self._next, self._next + 1
        self._deciding.add(request)
        self._send(Decide(request, protocol, port, address, host, resolver))
        return request

    def choose(self, vnet: str) -> int | None:
        """Asks for another virtual network; `NetworkChosen` follows. None: not now."""
        if not self.ready or len(self._choosing) >= CHOICES:
            return None
        request, self._next = self._next, self._next + 1
        self._choosing.add(request)
        self._send(Choose(request, vnet))
        return request

    def query(self, message: bytes, transport: Literal["udp", "tcp"]) -> int | None:
        """Asks a DNS question; `Answered` follows. None: not now."""
        if not self.ready or len(self._queries) >= QUERIES:
            return None
        stream = self._link.open(TO_NODE, TO_JUDGE, _QueryStream(self))
        if stream is None:
            return None
        request, self._next = self._next, self._next + 1
        self._queries[stream.stream] = (request, stream)
        stream.send(Query(message, transport))
        stream.finish()
        return request

    def lost(self) -> None:
        """The link is gone: everything under way is answered by nothing."""
        self.ready = False
        for request in self._deciding:
            self._events.append(Decided(request, None, Reason.JUDGE_AWAY, ""))
        for request in self._choosing:
            self._events.append(NetworkChosen(request, Reason.JUDGE_AWAY, ""))
        for request, _ in self._queries.values():
            self._events.append(Answered(request, None))
        self._deciding.clear()
        self._choosing.clear()
        self._queries.clear()

    def _take(self, message: ToNode) -> None:
        match message:
            case Network():
                if not self.ready:
                    self.ready = True
                    self._events.append(SessionReady(None))
                self._events.append(NetworkChanged(message))
            case Granted(request) if request in self._deciding:
                self._deciding.discard(request)
                self._events.append(Decided(request, message, Reason.UNKNOWN, ""))
            case Denied(request, reason, detail) if request in self._deciding:
                self._deciding.discard(request)
                self._events.append(Decided(request, None, Reason.of(reason), detail))
            case Chosen(request) if request in self._choosing:
                self._choosing.discard(request)
                self._events.append(NetworkChosen(request, None, ""))
            case Denied(request, reason, detail) if request in self._choosing:
                self._choosing.discard(request)
                self._events.append(NetworkChosen(request, Reason.of(reason), detail))
            case _:
                super()._take(message)

    def query_readable(self, stream: int) -> None:
        request, messages = self._queries[stream]
        for message in messages.handle_readable(at_most=1):
            if not isinstance(message, Answer | HostRoute):
                raise WireError(f"{type(message).__name__} in answer to a query")
            self._answered(stream, request, message)
            return
        if messages.finished:
            self._answered(stream, request, None)

    def query_writable(self, stream: int) -> None:
        if stream in self._queries:
            self._queries[stream][1].handle_writable()

    def query_ended(self, stream: int) -> None:
        if stream in self._queries:
            self._answered(stream, self._queries[stream][0], None)

    def _answered(self, stream: int, request: int, answer: Answer | HostRoute | None) -> None:
        del self._queries[stream]
        self._link.leave(stream)
        self._events.append(Answered(request, answer))


class _QueryStream:
    """Events of the streams that carry one query each."""

    def __init__(self, session: AgentSession) -> None:
        self._session = session

    def handle_readable(self, stream: int, now: float) -> None:
        self._session.query_readable(stream)

    def handle_writable(self, stream: int, now: float) -> None:
        self._session.query_writable(stream)

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        self._session.query_ended(stream)


def session_proof(ready: LinkReady, sign: Sign) -> bytes:
    """The signature that `Enter` carries."""
    return sign(LABEL, ready.challenge, ready.leaf)
