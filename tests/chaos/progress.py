"""When an app went on, flow by flow, and what that says about an event."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Window:
    """One event on the monotonic clock: it begins, it is over (`back`: the link mended, the edge ready), and the end
    of the recovery that belongs to it.
    """

    begin: float
    back: float
    end: float


@dataclass(slots=True)
class Track:
    """What one app has been through. A mark is a moment at which it went on; an opening starts a flow, and the time
    before it is nobody's stall. Safe to use from several threads.
    """

    name: str
    marks: list[tuple[float, bool]] = field(default_factory=list)
    """When, and whether a flow was opened then."""
    lost: list[tuple[float, str]] = field(default_factory=list)
    """Flows that ended and should not have: when and how."""
    unopened: list[tuple[float, str]] = field(default_factory=list)
    """Flows that could not be opened; they are tried again."""
    wrong: list[tuple[float, int]] = field(default_factory=list)
    """Bytes, or a transaction's parts, that are not what was sent: when and how many."""
    sent: list[float] = field(default_factory=list)
    missing: list[float] = field(default_factory=list)
    """Packets sent, and those of them that were never answered, by when they were sent."""
    carried: int = 0
    """Bytes that arrived."""
    open: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def opened(self) -> None:
        with self._lock:
            self.open = True
            self.marks.append((time.monotonic(), True))

    def mark(self, size: int = 0) -> None:
        """It went on, and so many bytes arrived."""
        with self._lock:
            self.carried += size
            self.marks.append((time.monotonic(), False))

    def closed(self) -> None:
        """The flow ended as it should."""
        self.open = False

    def lose(self, why: str) -> None:
        with self._lock:
            self.open = False
            self.lost.append((time.monotonic(), why))

    def not_opened(self, why: str) -> None:
        with self._lock:
            self.unopened.append((time.monotonic(), why))

    def spoil(self, how_many: int) -> None:
        with self._lock:
            self.wrong.append((time.monotonic(), how_many))

    def went_on_since(self, moment: float) -> bool:
        with self._lock:
            return bool(self.marks) and self.marks[-1][0] > moment

    def gaps(self, now: float) -> list[tuple[float, float]]:
        """Between two marks of one flow; the last is open until `now`."""
        with self._lock:
            marks, still = list(self.marks), self.open
        found = [(one[0], other[0]) for one, other in itertools.pairwise(marks) if not other[1]]
        if marks and still:
            found.append((marks[-1][0], max(now, marks[-1][0])))
        return found

    def says(self, window: Window) -> dict[str, Any]:
        """`stall`: the longest gap that touches the window. `after`: the longest part of one after `back`. `first`:
        from `back` until it went on. Seconds, None without any. The rest are counts.
        """
        touching = [gap for gap in self.gaps(window.end) if gap[1] > window.begin and gap[0] < window.end]
        later = [(max(begin, window.back), end) for begin, end in touching if end > window.back]
        with self._lock:
            marks = [at for at, _ in self.marks if window.back < at <= window.end]
            said: dict[str, Any] = {
                "stall": _longest(touching),
                "after": _longest(later),
                "first": round(marks[0] - window.back, 4) if marks else None,
                "lost": [why for at, why in self.lost if _within(at, window)],
                "unopened": [why for at, why in self.unopened if _within(at, window)],
                "wrong": sum(count for at, count in self.wrong if _within(at, window)),
            }
            if self.sent:
                said["sent"] = sum(_within(at, window) for at in self.sent)
                said["missing"] = sum(_within(at, window) for at in self.missing)
        return said


def _longest(gaps: list[tuple[float, float]]) -> float | None:
    return round(max(end - begin for begin, end in gaps), 4) if gaps else None


def _within(at: float, window: Window) -> bool:
    return window.begin <= at <= window.end
