"""How long, how often, and what is told meanwhile."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds of each measurement; figures are medians of `rounds`."""

    rounds: int = 3
    one: int = 2
    """One TCP stream; a second at its start is left out."""
    eight: int = 1
    loaded: int = 2
    """Datagrams under a TCP load, a thousand a second."""
    udp: int = 1
    """Each rate of the ladder."""
    connections: int = 1
    round_trips: int = 1000
    bad_link: int = 5
    """One TCP stream, `BAD_LINK_START` left out."""
    controllers: int = 5
    """One TCP stream on each link of the controllers' table."""
    profile: int = 4


BAD_LINK_START = 3
"""Seconds in which whatever probes for a rate may find it."""
QUICK = Settings(
    rounds=1, one=1, eight=1, loaded=1, udp=1, connections=1, round_trips=200, bad_link=2, controllers=1, profile=1
)  # every row works; the figures say little

_began = time.monotonic()


def tell(text: str) -> None:
    """Progress, on standard error."""
    print(f"[{time.monotonic() - _began:4.0f} s] {text}", file=sys.stderr, flush=True)
