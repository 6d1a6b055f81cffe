"""Waiting longer each time, with jitter where many would otherwise come at once."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Delays in seconds: `first`, doubled up to `most`. `random` (0 ≤ x < 1) takes up to half off each; None: exact."""

    def __init__(self, first: float, most: float, random: Callable[[], float] | None = None) -> None:
        self._first = first
        self._most = most
        self._random = random
        self._next = first
        self.tries = 0

    def next(self) -> float:
        """The delay to wait now."""
        delay, self._next = self._next, min(2 * self._next, self._most)
        self.tries += 1
        return delay if self._random is None else delay * (1 - self._random() / 2)

    def reset(self, first: float | None = None) -> None:
        """Begin again, from another first delay if one is given."""
        if first is not None:
            self._first = min(first, self._most)
        self._next = self._first
        self.tries = 0
