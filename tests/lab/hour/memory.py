"""What daemons hold, looked at again and again, and whether it grows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench import accounts

SETTLES = 600.0
"""Seconds at most (a third of a shorter run) until everything that is kept has been made once."""
COMPARED = 300.0
"""Seconds (a sixth of a shorter run) at the begin and at the end whose medians are compared."""
GROWS_AT_MOST, AND = 0.03, 2.0
"""Of the first median, and MiB on top: a daemon that kept 300 bytes for each short flow would be beyond in an hour."""


class Samples:
    """Of one run, in MiB, by role: what its process and its children hold (PSS), and what of that is no file's."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = roots
        self.at: list[float] = []
        """Seconds since the begin."""
        self.held: dict[str, list[float]] = {role: [] for role in roots}
        self.own: dict[str, list[float]] = {role: [] for role in roots}

    def take(self, now: float) -> None:
        self.at.append(round(now, 1))
        for role, pid in self._roots.items():
            self.held[role].append(round(accounts.memory([pid]), 2))
            self.own[role].append(round(accounts.memory([pid], "Pss_Anon"), 2))

    def says(self) -> dict[str, dict[str, Any]]:
        """By role: figures of all, those of its own, and whether these are flat."""
        said: dict[str, dict[str, Any]] = {}
        for role, held in self.held.items():
            own = figures(self.at, self.own[role])
            said[role] = {"held": figures(self.at, held), "own": own, "flat": flat(own)}
        return said


def figures(at: Sequence[float], sizes: Sequence[float]) -> dict[str, float]:
    """`first`, `last`: medians. `max`: of what comes after things have settled."""
    whole = at[-1]
    begin, part = min(SETTLES, whole / 3), min(COMPARED, whole / 6)

    def between(one: float, other: float) -> list[float]:
        return [size for moment, size in zip(at, sizes, strict=True) if one <= moment <= other]

    return {
        "start": sizes[0],
        "first": statistics.median(between(begin, begin + part) or sizes),
        "last": statistics.median(between(whole - part, whole)),
        "max": max(between(begin, whole)),
    }


def flat(own: Mapping[str, float]) -> bool:
    return own["last"] <= own["first"] * (1 + GROWS_AT_MOST) + AND
