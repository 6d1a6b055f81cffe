"""One timer on the running loop, armed anew after every input: mostly for later, so that it mostly stays as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

FUZZ = 2e-6
"""A deadline that is so near is now: the engines add a margin of 1 µs, and floats of seconds are not exact."""
TICK = 0.00049
"""uvloop counts whole milliseconds and rounds delays to the nearest one. With this a delay is never rounded down, which
would wake us too early again and again until the millisecond is over: a quarter of the processor time of a sender."""


def clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """What tells the time of a call, on the scale of the loop's. uvloop's own is that of the wake-up, in milliseconds:
    a short path then has a round trip of nothing."""
    return time.monotonic if type(loop).__module__.partition(".")[0] == "uvloop" else loop.time


NEAR = 0.001
"""Seconds: who will be woken so soon anyway looks at deadlines then. No wake-up can be timed more finely."""


class Timer:
    """Calls `due(now)` once the deadline that `deadline()` names is over, and `arm` is called after that, too."""

    def __init__(self, deadline: Callable[[], float | None], due: Callable[[float], None]) -> None:
        self._deadline = deadline
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_at = 0.0

    def arm(self) -> None:
        """The deadline may be another one now, or none."""
        if self._handle is not None and self._armed_at <= self._loop.time() + NEAR:
            return
        at = self._deadline()
        if self._handle is not None:
            if at is not None and self._armed_at <= at:
                return  # wakes early, looks, and is armed anew: cheaper than a new handle for every packet
            self._handle.cancel()
            self._handle = None
        if at is not None:
            self._handle, self._armed_at = self._loop.call_at(at + TICK, self._wake), at

    def _wake(self) -> None:
        self._handle = None
        at, now = self._deadline(), self._loop.time()
        if at is not None and at <= now + FUZZ:
            self._due(max(now, at))
        else:
            self.arm()

    def cancel(self) -> None:
        """Until it is armed again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def end(self) -> None:
        """For ever: nobody is held any more."""
        self.cancel()
        self._deadline, self._due = lambda: None, lambda now: None
