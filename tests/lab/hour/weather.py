"""What happens to the laptop's line, one change at a time, in an order that a seed repeats."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.world import LINE
from warren.lab import Impairment, Lab, breaking

LOSS = (0.01, 0.03)
DELAY = (0.005, 0.04)
"""Seconds, each way."""
REORDERED = (0.005, 0.03)
DUPLICATED = 0.01
SIZES = (1280, 1400)
"""Bytes of the path where it is narrow; what is larger vanishes."""


@dataclass(frozen=True, slots=True)
class Change:
    """Another `impairment` of the line, or something to do in the lab."""

    title: str
    impairment: Impairment | None = None
    act: Callable[[Lab], None] = lambda lab: None


def changes(seed: int) -> Iterator[Change]:
    """Without end: the line gets bad, then everything in an order of chance, then again."""
    draw = random.Random(seed)
    yield worse(draw)
    while True:
        kinds = [
            worse(draw),
            worse(draw),
            Change("the laptop's NAT rebinds", act=lambda lab: breaking.rebind(lab["home"])),
            Change("the office's NAT rebinds", act=lambda lab: breaking.rebind(lab["office"])),
            narrower(draw.choice(SIZES)),
            Change("a path MTU of 1,500 again", act=lambda lab: lab.links.mend(LINE)),
        ]
        yield from draw.sample(kinds, len(kinds))


def worse(draw: random.Random) -> Change:
    return Change("another loss and delay", bad(draw))


def narrower(size: int) -> Change:
    return Change(f"a path MTU of {size:,}", act=lambda lab: lab.links.narrow(LINE, size))


def bad(draw: random.Random) -> Impairment:
    """Loss, delay, jitter, reordering and duplicates all together."""
    delay = draw.uniform(*DELAY)
    return Impairment(
        loss=draw.uniform(*LOSS),
        delay=delay,
        jitter=delay * draw.uniform(0, 0.3),
        reorder=draw.uniform(*REORDERED),
        duplicate=draw.uniform(0, DUPLICATED),
        seed=draw.randrange(1 << 30),
    )
