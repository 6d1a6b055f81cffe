"""Whether this process stood still: SIGSTOP, a container or a virtual machine that was paused.

What waited in its sockets meanwhile is old, and is better not read, as if the network had been away: an acknowledgement
that is read a minute late is a round trip of a minute to whoever reads it, and every wait is made from round trips.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SHORT = 1.5
"""Seconds between two looks at the clock that are a standstill."""
LOOKS = 3
"""Looks in that time: a standstill is noticed from two thirds of it on, and nobody is woken for more."""


class Standstill:
    """Looks at the loop's clock, again and again, until it is closed."""

    def __init__(self, over: Callable[[], None], longest: float = SHORT) -> None:
        """`over`: called once after each time that the process stood still for longer than `longest` seconds, before
        anything is read."""
        self._over, self._longest, self._every = over, longest, longest / LOOKS
        self._loop = asyncio.get_running_loop()
        self._looked_at = self._loop.time()
        self._timer = self._loop.call_later(self._every, self._again)

    def look(self) -> None:
        """Before each reading: which comes first after a standstill, that or a timer, is the loop's choice."""
        now = self._loop.time()
        if now - self._looked_at > self._longest:
            self._looked_at = now
            self._over()

    def _again(self) -> None:
        self._timer = self._loop.call_later(self._every, self._again)
        self.look()
        self._looked_at = self._loop.time()

    def close(self) -> None:
        """Looks no more."""
        self._timer.cancel()
