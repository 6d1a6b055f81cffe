"""How long flows go on that no judge confirms. Pure.

A session that lives confirms every flow, if its judge can read the store. One that can't confirms what it has read
last: what was taken back since, nobody has told it (protocol.md, section 4).
"""

from __future__ import annotations

from collections.abc import Iterable


class Lease:
    """Of one connector process. Times: seconds of CLOCK_BOOTTIME."""

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self._confirmed = now
        self._read: dict[str, float] = {}
        """Judges (ids of edges) that can't read the store, and when they have last."""

    def told(self, judge: str, age: float, now: float) -> None:
        """A judge says for how many seconds it has not been able to read its store; 0: it can."""
        if age > 0:
            self._read[judge] = now - age
        else:
            self._read.pop(judge, None)

    def over(self, living: Iterable[str], now: float) -> bool:
        """Whether every flow has to end: once for each lease. `living`: judges before whom there is a session."""
        self._confirmed = max([self._confirmed, *(self._read.get(judge, now) for judge in living)])
        if now - self._confirmed <= self.seconds:
            return False
        self._confirmed = now
        return True
