"""One flow of bytes on a peer connection: read ended, write ended and reset are three facts, each with its position.

The owner (a pump between a kernel socket and it) calls `read`, `took`, `write`, `end` and `reset`; `core/peer.py`
feeds what comes from the wire. A reset never overtakes data: `ended` says so only when everything before it was read.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

from warren.fabric.core.credit import Allowance, Budget, Window
from warren.fabric.core.engine import Buffer
from warren.fabric.core.errors import WireError

if TYPE_CHECKING:
    from warren.fabric.core.messages.peer import OnStream
    from warren.fabric.core.peer import Peer
    from warren.fabric.core.streams import MessageStream

Ending = Literal["end", "reset"]


class Flow:
    """One TCP connection between an app and an origin, on one stream of a peer connection."""

    __slots__ = (
        "_chunks",
        "_ended_at",
        "_ending",
        "_peer",
        "_read",
        "allowance",
        "armed",
        "head",
        "id",
        "key",
        "opened",
        "owner",
        "stream",
        "window",
        "write_wanted",
        "wrote",
    )

    def __init__(self, peer: Peer, flow_id: bytes, stream: int, budget: Budget) -> None:
        self._peer = peer
        self.id = flow_id
        self.stream = stream
        self.allowance = Allowance()
        self.window = Window(budget)
        self.head: MessageStream[OnStream, OnStream] | None = None
        """Reads the first message (Open, Opened, Refused) until it is there; None from then on."""
        self.opened = False
        self.wrote: Ending | None = None
        """How our direction ended."""
        self.write_wanted = False
        self.armed = True
        """Whether the next arrival is worth a FlowReadable."""
        self.owner: object = None
        """Whatever the shell keeps for this flow (its pump)."""
        self.key: object = None
        """Whatever the shell knows it by (the capture's 5-tuple)."""
        self._chunks: deque[bytes] = deque()
        self._read = 0
        self._ending: Ending | None = None
        self._ended_at = -1

    # ---- from the owner ----

    @property
    def ended(self) -> Ending | None:
        """How the other side ended its direction, once everything before that was read."""
        return self._ending if self._read == self._ended_at else None

    @property
    def buffered(self) -> int:
        """Bytes that arrived and were not read."""
        return self.window.received - self._read

    def read(self, limit: int) -> Buffer:
        """At most `limit` bytes, in order; b"" if none are there. Arms the next Readable when it empties."""
        if not self._chunks:
            self.armed = True
            return b""
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        elif len(chunk) < limit and self._chunks:
            chunk = self._gather(chunk, limit)
        self._read += len(chunk)
        return chunk

    def _gather(self, first: bytes, limit: int) -> bytes:
        """Joins whole chunks up to `limit`, so that the socket is written to once and not once a packet."""
        parts, size = [first], len(first)
        while self._chunks and size + len(self._chunks[0]) <= limit:
            part = self._chunks.popleft()
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def took(self, count: int, now: float) -> None:
        """The far socket took `count` bytes: returns credit when enough has gathered."""
        offset = self.window.took(count, now, self._peer.round_trip())
        if offset is not None and self._ending is None:
            self._peer.tell_credit(self, offset)

    def write(self, data: Buffer) -> int:
        """How many bytes were taken; a short count promises a Writable."""
        if self.wrote is not None:
            return 0
        room = min(len(data), self.allowance.room)
        taken = self._peer.write(self, data if room == len(data) else memoryview(data)[:room]) if room else 0
        self.allowance.sent += taken
        self.write_wanted = taken < len(data)
        return taken

    def end(self) -> None:
        """Nothing more will be written."""
        self._finish("end")

    def reset(self) -> None:
        """The local socket was reset: the far one is reset when it has taken what was written before."""
        self._finish("reset")

    def _finish(self, how: Ending) -> None:
        if self.wrote is None or (self.wrote == "end" and how == "reset"):
            self.wrote = how
            self._peer.tell_end(self, how)

    # ---- from the peer connection ----

    def arrived(self, data: bytes) -> None:
        """Raises WireError if the other side wrote past its credit or past its own end."""
        if not self.window.arrived(len(data)):
            raise WireError(f"{self.window.received} bytes on a flow with credit for {self.window.granted}")
        if 0 <= self._ended_at < self.window.received:
            raise WireError("bytes behind the end of a flow")
        self._chunks.append(data)

    def far_end(self, how: Ending, offset: int) -> None:
        """The other side's Ended. A reset may follow an end at the same offset. Raises WireError."""
        if self._ending == "reset":
            return
        if offset < self.window.received or (self._ended_at >= 0 and offset != self._ended_at):
            raise WireError("an end of a flow before bytes that came")
        self._ending, self._ended_at = how, offset

    def lost(self) -> None:
        """The stream or the whole connection is gone: what was received is still delivered, then a reset."""
        self._ending, self._ended_at = "reset", self.window.received

    def discard(self) -> None:
        """What arrived and was not read is of no use to anybody."""
        self._chunks.clear()
        self._read = self.window.received

    @property
    def over(self) -> bool:
        """Both directions have ended; the stream's end was seen, or does not matter after a reset."""
        if self.wrote is None or self._ending is None:
            return False
        return self.ended is not None or self.wrote == "reset"
