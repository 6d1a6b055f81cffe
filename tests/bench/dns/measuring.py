"""One run: each size of list, each server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.bench.dns import ours
from tests.bench.dns.loads import delays
from tests.bench.dns.others import OTHERS
from tests.bench.dns.others import measure as measure_other
from tests.bench.dns.world import UPSTREAM, World, make_world, upstream
from tests.bench.machine import machine
from tests.bench.settings import tell

SIZES: Final = (10_000, 100_000, 1_000_000)
SECONDS: Final = 1
ROUNDS: Final = 3


def measure(sizes: Sequence[int] = SIZES, *, quick: bool = False, alone: bool = False) -> dict[str, Any]:
    """Plain values for the page and the JSON. The others are measured with the smallest and the largest list, over TLS
    and HTTPS with the largest one only."""
    rounds = 1 if quick else ROUNDS
    load = round(os.getloadavg()[0], 1)
    said: dict[str, Any] = {"machine": machine(), "load": load, "rounds": rounds, "seconds": SECONDS}
    said |= {"version": version("warren"), "sizes": []}
    sizes = sorted(set(sizes))
    with upstream():
        for entries in sizes:
            with tempfile.TemporaryDirectory() as name:
                world = make_world(Path(name), entries)
                beside = not alone and entries in (sizes[0], sizes[-1])
                said["sizes"].append(_size(world, rounds, beside=beside, encrypted=entries == sizes[-1]))
    return said


def _size(world: World, rounds: int, *, beside: bool, encrypted: bool) -> dict[str, Any]:
    tell(f"{world.entries:,} names: Warren")
    made: dict[str, Any] = {"entries": world.entries, "encrypted": encrypted}
    made["direct_ms"] = delays(world.fresh, UPSTREAM)
    made["warren"] = ours.measure(world, SECONDS, rounds)
    made["others"] = []
    for other in OTHERS if beside else ():
        tell(f"{world.entries:,} names: {other.name}")
        made["others"].append(measure_other(other, world, SECONDS, rounds, encrypted=encrypted))
    return made
