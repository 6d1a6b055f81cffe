"""Torture and the stateful model at length, on all cores.

    python -m tests.sim.soak [seeds] [--model EXAMPLES] [--seed FIRST] [--write]
                                     (`make soak`: 1,000 seeds of each pairing, 5,000 examples; an hour and a half)

A run is bad when a stream stalls, loses, doubles or spoils a byte, or when a connection ends; an example of the model
is bad as reference.py says, and is printed as a script that replays it. --write puts the tables into docs/soak.md. The
exit code is 1 if anything was bad.
"""

from __future__ import annotations

import argparse
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
from tests.sim.machine import Machine, explore
from tests.sim.test_torture_streams import test_ending_streams, test_lasting_streams_beside_datagrams
from warren.fabric.core.engine import Engine
from warren.fabric.engines import EngineName, engine

REPORT = Path(__file__).resolve().parents[2] / "docs" / "soak.md"
EXAMPLES = 50
"""Of the model, that a process takes at a time; the report counts them by this."""
MODELS: tuple[EngineName, ...] = ("native", "native", "native", "aioquic")
"""Engines of the model's processes: three quarters on the one that carries most traffic."""
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


def model(number: int) -> tuple[int, int, str]:
    """So many examples from one seed: (seed, steps, what went wrong)."""
    before = Machine.played
    try:
        explore(number, EXAMPLES, MODELS[number % len(MODELS)])
    except Exception as error:  # any: that is what is looked for
        return number, Machine.played - before, f"{type(error).__name__}: {error}"
    return number, Machine.played - before, ""


def table(seeds: int, bad: list[tuple[Job, str]], seconds: float) -> str:
    """The report on torture."""
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


def model_table(found: list[tuple[int, int, str]], seconds: float) -> str:
    """The report on the model."""
    lines = [
        "",
        "# The stateful model",
        "",
        "Real edges, connectors and an agent's side on the simulated network (tests/sim/machine.py): processes are",
        "killed, frozen and started, hosts roam, NATs forget, ways are cut, lossy, slow or narrow, routes come and go,",
        "flows carry checked bytes. An example is bad when a byte is wrong, a flow is lost that should live or hangs",
        "that should end, a bound is passed, an error is logged, or something does not work again once all is mended.",
        "",
        f"{time.strftime('%Y-%m-%d')}; {seconds / 60:.0f} minutes.",
        "",
        "| engine | seeds | examples, at most | steps | bad seeds |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(MODELS):
        rows = [row for row in found if MODELS[row[0] % len(MODELS)] == name]
        steps, bad = sum(row[1] for row in rows), sum(bool(row[2]) for row in rows)
        lines.append(f"| {name} | {len(rows)} | {len(rows) * EXAMPLES} | {steps} | {bad} |")
    lines += [line for number, _, fault in found if fault for line in ("", f"Seed {number}:", "", f"    {fault}")]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.soak")
    parser.add_argument("seeds", type=int, nargs="?", default=1_000)
    parser.add_argument("--model", type=int, default=5_000, metavar="EXAMPLES")
    parser.add_argument("--seed", type=int, default=1, metavar="FIRST", help="of the model")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args(arguments)
    engine("native")  # says at once what is missing
    every, began = jobs(asked.seeds), time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = progress(iter(pool.map(run, every, chunksize=AT_ONCE)), len(every))
        bad = [(job, fault) for job, fault in results if fault]
        text, began = table(asked.seeds, bad, time.monotonic() - began), time.monotonic()
        numbers = range(asked.seed, asked.seed + -(-asked.model // EXAMPLES))
        found = list(pool.map(model, numbers))
    text += model_table(found, time.monotonic() - began)
    print(text)
    if asked.write:
        REPORT.write_text(text)
    return 1 if bad or any(fault for _, _, fault in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
