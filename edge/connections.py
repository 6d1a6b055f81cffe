"""QUIC connections that nodes make to the edge: a greeting, then each stream to the family of its first message.

Attachment and session share a connection here while judge and switch are one process; this is the only place that
knows both. A connection that has proved nothing is bounded in number and time.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from warren.edge.judge.sessions import Session, Sessions
from warren.edge.switch.attachments import Attachment, Attachments
from warren.fabric.aio.timer import Timer
from warren.fabric.core.engine import (
    Address,
    Batch,
    Closed,
    Connected,
    Connection,
    Endpoint,
    StreamReset,
    StreamStopped,
)
from warren.fabric.core.errors import WireError
from warren.fabric.core.link import greet
from warren.fabric.core.messages import Codec
from warren.fabric.core.messages import attachment as attach_family
from warren.fabric.core.messages import session as session_family
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream, StreamHandler, Streams

log = structlog.get_logger()

FIRST: Codec[attach_family.Attach | session_family.Enrol | session_family.Enter | session_family.Query] = Codec(
    attach_family.Attach | session_family.Enrol | session_family.Enter | session_family.Query
)
"""What a stream may begin with; the tag tells the family."""
FIRSTS = 8
"""Streams without a whole first message on a connection that has proved nothing: an honest node opens two at once."""
UNPROVED = 512
"""Connections that have proved nothing: twice the half-open handshakes that the engine allows."""
ANSWER_TIME, LONGEST_DOUBT = 0.3, 3.0
"""Seconds within which a process that is asked on QUIC answers; three PTOs where the way is longer."""
PROOF_TIME = 10.0
"""Seconds for handshake and proof."""


class NodeConnection:
    """One node's connection."""

    def __init__(self, owner: Connections, connection: Connection) -> None:
        self.connection = connection
        self.session: Session | None = None
        self.attachment: Attachment | None = None
        self._owner = owner
        self._challenge = os.urandom(32)
        self._greeted = False
        self._streams = Streams(connection, self._adopt)
        self._firsts: dict[int, MessageStream[Any, Any]] = {}
        self.deadline = asyncio.get_running_loop().call_later(PROOF_TIME, self._late)

    @property
    def proved(self) -> bool:
        attached = self.attachment is not None and self.attachment.member is not None
        return attached or (self.session is not None and self.session.node is not None)

    @property
    def key(self) -> bytes:
        """The key that the attachment was proved with; empty while there is none."""
        return self.attachment.member.key if self.attachment is not None and self.attachment.member is not None else b""

    def drain(self, now: float) -> None:
        for event in self._streams.drain(now):
            match event:
                case Connected() if not self._greeted:
                    self._greeted = greet(self.connection, self._challenge, self._owner.boot)
                case Closed(code, reason, ours):
                    log.debug("connection over", code=code, reason=reason, ours=ours)
                    self._gone(now)

    def flush(self) -> None:
        self._owner.touch(self)

    def close(self, reason: Reason) -> None:
        self.connection.close(reason.close_code, reason.word, asyncio.get_running_loop().time())
        self.flush()

    def _late(self) -> None:
        if not self.proved:
            self.close(Reason.TIMED_OUT)

    def _gone(self, now: float) -> None:
        self.deadline.cancel()
        if self.session is not None:
            self.session.gone()
        if self.attachment is not None:
            self.attachment.gone(now)
        self._owner.forget(self)
        self.session = self.attachment = None  # they hold it, and it what the engine keeps, until somebody lets go
        self._streams.end()

    # ---- streams ----

    def _adopt(self, stream: int, bidirectional: bool, now: float) -> StreamHandler | None:
        if not bidirectional or (len(self._firsts) >= FIRSTS and not self.proved):
            return None
        self._firsts[stream] = MessageStream(self.connection, stream, FIRST, FIRST)
        return self

    def handle_readable(self, stream: int, now: float) -> None:
        """The first message on a stream: its family takes over."""
        first = self._firsts.get(stream)
        if first is None:
            return
        messages = first.handle_readable(at_most=1)
        if not messages:
            if first.finished:
                raise WireError("a stream that says nothing")
            return
        del self._firsts[stream]
        handler = self._begin(stream, first, messages[0], now)
        if handler is not None:
            self._streams.register(stream, handler)
            handler.handle_readable(stream, now)

    def _begin(self, stream: int, first: MessageStream[Any, Any], message: Any, now: float) -> StreamHandler | None:
        match message:
            case attach_family.Attach():
                if self.attachment is not None:
                    raise WireError("a second attachment on one connection")
                family = first.become(attach_family.TO_SWITCH, attach_family.TO_NODE)
                self.attachment = self._owner.attachments.begin(
                    family, message, self._challenge, flush=self.flush, close=self.close, now=now
                )
                return self.attachment
            case session_family.Enrol() | session_family.Enter():
                if self.session is None:
                    self.session = Session(self._owner.sessions, self._challenge, self.flush, self.close)
                self.session.begin(first.become(session_family.TO_JUDGE, session_family.TO_NODE), message)
                return self.session
            case session_family.Query():
                if self.session is None:
                    raise WireError("a query without a session")
                messages = first.become(session_family.TO_JUDGE, session_family.TO_NODE)
                query = _QueryStream(messages, lambda: self._streams.forget(stream))
                self.session.query(messages, message, query.answered)
                return query
        raise WireError("a stream of no family")

    def handle_writable(self, stream: int, now: float) -> None:
        pass

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        self._firsts.pop(stream, None)
        self._streams.forget(stream)


class _QueryStream:
    """A query's stream, until it has ended in both directions. `over`: nobody needs to hear of it any more."""

    def __init__(self, messages: MessageStream[Any, Any], over: Callable[[], None]) -> None:
        self._messages = messages
        self._over = over
        self._answered = False

    def answered(self) -> None:
        """All that there is to say was said, and the stream's end."""
        self._answered = True
        self._look_over()

    def handle_readable(self, stream: int, now: float) -> None:
        if self._messages.handle_readable():
            raise WireError("two queries on one stream")
        self._look_over()

    def handle_writable(self, stream: int, now: float) -> None:
        self._messages.handle_writable()
        self._look_over()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        self._over()

    def _look_over(self) -> None:
        if self._answered and not self._messages.queued and self._messages.finished:
            self._over()


class Connections:
    """All of them, on one endpoint. `send(address, batch)`: False when the socket is full."""

    def __init__(
        self,
        endpoint: Endpoint,
        boot: bytes,
        sessions: Sessions,
        attachments: Attachments,
        send: Callable[[Address, Batch], bool],
    ) -> None:
        self.boot = boot
        self.sessions = sessions
        self.attachments = attachments
        self.counters: Counter[str] = Counter()
        self._endpoint = endpoint
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._by_connection: dict[Connection, NodeConnection] = {}
        self._unproved: set[NodeConnection] = set()
        """Those that had not proved themselves when it was last looked at."""
        self._stuck: tuple[Address, Batch] | None = None
        self._timer = Timer(self._endpoint.timer, self._due)
        self._heard = False
        self._flushing = False
        self._soon = False

    def __len__(self) -> int:
        return len(self._by_connection)

    def receive(self, buffer: bytes, stride: int, address: Address, now: float) -> None:
        """A buffer of QUIC's; `settle` after the last one."""
        self._heard = True
        self._endpoint.receive(buffer, stride, address, now)

    def settle(self) -> None:
        """After every wake-up of the socket. Most brought circuit packets only, and nothing is to be done here."""
        if self._heard or self.attachments.circuits.has_messages:
            self.flush()

    def touch(self, node: NodeConnection) -> None:
        """Something was said on this connection outside of `flush`."""
        self._endpoint.touch(node.connection)
        if not self._flushing and not self._soon:
            self._soon = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._soon = False
        self.flush()

    def doubt(self, key: bytes, gone: Callable[[], None], times: int = 2) -> None:
        """Does the node with this key still answer? If none of its connections does within `ANSWER_TIME`: `gone()`.
        Asked twice: what comes after the first time may have waited unread since before its end."""
        now = self._loop.time()
        heard: dict[Connection, int] = {}
        for node in self._by_connection.values():
            if node.key == key:
                heard[node.connection] = node.connection.statistics().received
                node.connection.probe(now)
                self._endpoint.touch(node.connection)
        self.flush()

        def look() -> None:
            if not any(connection.statistics().received > before for connection, before in heard.items()):
                gone()
            elif times > 1:
                self.doubt(key, gone, times - 1)

        wait = max([ANSWER_TIME, *(3 * connection.pto() for connection in heard)])
        self._loop.call_later(min(wait, LONGEST_DOUBT), look)

    def forget(self, node: NodeConnection) -> None:
        self._by_connection.pop(node.connection, None)
        self._unproved.discard(node)

    def flush(self) -> None:
        """Drain all events, send all batches, re-arm the timer."""
        now = self._loop.time()
        self._heard, self._flushing = False, True
        try:
            while (connection := self._endpoint.accept()) is not None:
                self._accept(connection, now)
            while (connection := self._endpoint.active()) is not None:
                node = self._by_connection.get(connection)
                if node is not None:
                    node.drain(now)
            self.attachments.flush(now)
            self._transmit(now)
        finally:
            self._flushing = False
        self._timer.arm()

    def _accept(self, connection: Connection, now: float) -> None:
        self._unproved = {node for node in self._unproved if not node.proved}
        if len(self._unproved) >= UNPROVED:
            self.counters["too_many_unproved"] += 1
            connection.close(Reason.LIMIT.close_code, Reason.LIMIT.word, now)
            self._endpoint.touch(connection)
            return
        node = self._by_connection[connection] = NodeConnection(self, connection)
        self._unproved.add(node)
        node.drain(now)

    def _transmit(self, now: float) -> None:
        while True:
            out = self._stuck or self._endpoint.transmit(now)
            if out is None:
                return
            self._stuck = None if self._send(*out) else out
            if self._stuck is not None:
                return

    def _due(self, now: float) -> None:
        self._endpoint.handle_timer(now)
        self.flush()

    def close(self) -> None:
        """Says goodbye on every connection."""
        now = self._loop.time()
        for node in list(self._by_connection.values()):
            node.connection.close(Reason.PEER_GONE.close_code, "the edge stops", now)
            self._endpoint.touch(node.connection)
        self.flush()
        self._timer.cancel()
