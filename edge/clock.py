"""The time that an edge signs: the wall clock's at the start of the process, kept going on CLOCK_BOOTTIME.

Connectors judge grants by the signed time of the edge (protocol.md, section 4), so it must not jump when somebody sets
the host's clock. What people name times in (the end of a key, of an enrolment) is judged by the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from warren.fabric.aio.elapsed import elapsed


class SteadyClock:
    """Unix time in seconds, by `clock()`."""

    def __init__(self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = elapsed) -> None:
        self._elapsed = elapsed
        self._offset = wall() - elapsed()

    def __call__(self) -> float:
        return self._offset + self._elapsed()
