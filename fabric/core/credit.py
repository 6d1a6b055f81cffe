"""Byte windows by cumulative offset: what bounds a flow's memory, and what resumption stands on.

The receiver returns credit only after the far kernel socket took the bytes (protocol.md, section 5), so a reader that
pauses holds up its own flow and nobody else's, whatever the QUIC engine does.
"""

from __future__ import annotations

INITIAL_WINDOW = 256 << 10
"""Bytes that may be written before the first credit arrives; both ends know it."""
LARGEST_WINDOW = 14 << 20
"""Eight flows that were as fast as can be and then stand still stay below 128 MiB, with all that is held besides."""
PROCESS_WINDOW = 256 << 20
"""What the windows of all flows of a process may grow to together (initial windows not counted)."""
LASTS = 4
"""Round trips for which a window has to last. What lies behind a lost packet is delivered a round trip late, behind one
that is lost again two, and its credit takes a third: with less, loss would hold the writer back and not the link."""
SCHEDULING = 0.02
"""Seconds added to them. Credit passes two event loops and four kernel queues, each of which may be busy with a batch:
sized by the wire's 0.2 ms alone a window would empty at every turn."""
PARTS = 4
"""Credit goes back once one of so many parts of the window was taken: the rest bridges the way back."""
OFFSET_LIMIT = 1 << 62


class Allowance:
    """The writer's half: how far the other side allows us to write."""

    __slots__ = ("limit", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.limit = INITIAL_WINDOW

    @property
    def room(self) -> int:
        """Bytes that may be written now."""
        return self.limit - self.sent

    def raise_to(self, offset: int) -> bool:
        """Takes a Credit message; whether it allows more than before (an older one changes nothing)."""
        if offset <= self.limit or offset > OFFSET_LIMIT:
            return False
        self.limit = offset
        return True


class Budget:
    """What the windows of one process may take together beyond their first size."""

    __slots__ = ("left",)

    def __init__(self, total: int = PROCESS_WINDOW) -> None:
        self.left = total

    def take(self, wanted: int) -> int:
        """As much of `wanted` as there is."""
        taken = min(wanted, self.left)
        self.left -= taken
        return taken

    def give(self, returned: int) -> None:
        self.left += returned


class Window:
    """The reader's half: what we allow the other side to write, grown by what is really delivered."""

    __slots__ = ("_budget", "_epoch_at", "_epoch_taken", "granted", "received", "size", "taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._epoch_at = -1.0
        self._epoch_taken = 0
        self.size = INITIAL_WINDOW
        self.granted = INITIAL_WINDOW
        self.received = 0
        self.taken = 0

    def arrived(self, count: int) -> bool:
        """Bytes came in; False if the other side wrote past its credit."""
        self.received += count
        return self.received <= self.granted

    def took(self, count: int, now: float, round_trip: float) -> int | None:
        """The socket took `count` bytes; the offset to tell the other side, once a part of the window is used up."""
        self.taken += count
        self._measure(now, LASTS * round_trip + SCHEDULING)
        if self.granted - self.taken > self.size - self.size // PARTS:
            return None
        self.granted = self.taken + self.size
        return self.granted

    def _measure(self, now: float, lasts: float) -> None:
        """Doubles a window that was delivered whole in less than `lasts` seconds, so that it never is what limits."""
        if self._epoch_at < 0:
            self._epoch_at = now
        soon = now - self._epoch_at < lasts
        used_up = self.taken - self._epoch_taken >= self.size
        if soon and not used_up:
            return
        self._epoch_at, self._epoch_taken = now, self.taken
        if soon:
            self.size += self._budget.take(min(self.size, LARGEST_WINDOW - self.size))

    def close(self) -> None:
        """The flow is over: what the window had grown by goes back."""
        self._budget.give(self.size - INITIAL_WINDOW)
        self.size = INITIAL_WINDOW
