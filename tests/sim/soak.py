"""Torture at length: every kind with every pairing of engines, on all cores.

    python -m tests.sim.soak [seeds] [--write]        (`make soak`: 1,000 seeds of each, about an hour)

A run is bad when a stream stalls, loses, doubles or spoils a byte, or when a connection ends. --write puts the table
into docs/soak.md. The exit code is 1 if any run was bad.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path

from tests.certificates import Shown, certificates
from tests.sim.conftest import PAIRINGS
from tests.sim.test_torture_streams import test_ending_streams, test_lasting_streams_beside_datagrams
from warren.fabric.core.engine import Engine
from warren.fabric.engines import EngineName, engine

REPORT = Path(__file__).resolve().parents[2] / "docs" / "soak.md"
AT_ONCE = 16
"""Runs that a process takes at a time."""
Kind = Callable[[int, tuple[Engine, Engine], Shown], None]


def lasting(paths: str, seed: int, engines: tuple[Engine, Engine], shown: Shown) -> None:
    """Long streams beside datagrams."""
    test_lasting_streams_beside_datagrams(seed, paths, engines, shown)


KINDS: dict[str, Kind] = {
    "ending streams": test_ending_streams,
    "lasting streams beside datagrams": partial(lasting, "steady"),
    "the same, while the path changes": partial(lasting, "changing"),
}
NAMES: dict[str, EngineName] = {"native": "native", "aioquic": "aioquic"}
Job = tuple[str, str, int]
"""Kind, pairing, seed."""


@lru_cache(maxsize=1)
def shown() -> Shown:
    """One root, chain and key for all runs of a process."""
    return certificates()


def run(job: Job) -> tuple[Job, str]:
    """What went wrong; nothing: "". Engines draw ids and keys themselves: a seed repeats the path, not the run."""
    kind, pairing, seed = job
    client, server = pairing.split("-")
    try:
        KINDS[kind](seed, (engine(NAMES[client]), engine(NAMES[server])), shown())
    except Exception as error:  # any: that is what is looked for
        return job, f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return job, ""


def jobs(seeds: int) -> list[Job]:
    """All of them, mixed, so that the progress says something about all."""
    every = [(kind, pairing, seed) for kind in KINDS for pairing in PAIRINGS for seed in range(seeds)]
    random.Random(0).shuffle(every)
    return every


def progress(done: Iterator[tuple[Job, str]], count: int) -> Iterator[tuple[Job, str]]:
    """Passes results on; a line each tenth, and for each bad one at once."""
    began = time.monotonic()
    for number, (job, fault) in enumerate(done, 1):
        if fault:
            print(f"bad: {job}: {fault}", flush=True)
        if number % max(1, count // 10) == 0:
            print(f"{number} of {count} runs, {time.monotonic() - began:.0f} s", flush=True)
        yield job, fault


def table(seeds: int, bad: list[tuple[Job, str]], seconds: float) -> str:
    """The report."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for (kind, pairing, seed), _ in bad:
        found[kind, pairing].append(seed)
    versions = f"warren-quic {metadata.version('warren-quic')}, aioquic {metadata.version('aioquic')}"
    lines = [
        "# Torture at length",
        "",
        f"`make soak` makes this page: {seeds} seeds of each kind and pairing of engines on the simulated network,",
        "under loss up to 15 %, duplication, reordering up to 30 %, round trips of 2.5 to 150 ms, rates from 2 Mbit/s.",
        "A run is bad when a stream stalls, loses, doubles or spoils a byte, or when its connection ends.",
        "",
        f"{versions}; {time.strftime('%Y-%m-%d')}; {seconds / 60:.0f} minutes. Bad runs of {seeds}:",
        "",
        "| client–server | " + " | ".join(KINDS) + " |",
        "|---|" + "---|" * len(KINDS),
    ]
    for pairing in PAIRINGS:
        cells = [f"{len(found[kind, pairing])}" for kind in KINDS]
        lines.append(f"| {pairing.replace('-', '–')} | {' | '.join(cells)} |")
    if bad:
        lines += ["", "Bad ones:", ""]
        lines += [f"* {kind}, {pairing}, seed {seed}: {fault}" for (kind, pairing, seed), fault in sorted(bad)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    numbers = [int(word) for word in arguments if word.isdigit()]
    seeds = numbers[0] if numbers else 1_000
    engine("native")  # says at once what is missing
    every, began = jobs(seeds), time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = progress(iter(pool.map(run, every, chunksize=AT_ONCE)), len(every))
        bad = [(job, fault) for job, fault in results if fault]
    text = table(seeds, bad, time.monotonic() - began)
    print(text)
    if "--write" in arguments:
        REPORT.write_text(text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
