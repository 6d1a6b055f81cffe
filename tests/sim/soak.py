"""Torture and the stateful model at length, on all cores.

    python -m tests.sim.soak [seeds] [--model EXAMPLES] [--seed FIRST] [--journal FILE] [--write]
                                     (`make soak`: 1,000 seeds of each pairing, 5,000 examples; some hours)

A run is bad when a stream stalls, loses, doubles or spoils a byte, or when a connection ends; an example of the model
is bad as reference.py says, and is printed as a script that replays it. --write puts the tables into docs/soak.md and
docs/soak-model.md, each when its part is done; 0 seeds or 0 examples leave a part out. What was found is kept in the
journal, if one is named, run by run, and is not looked for again: a soak that was broken off goes on where it was. It
does not know what the code was: after a change name another. The exit code is 1 if anything was bad.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.certificates import Shown, certificates
from tests.sim.conftest import PAIRINGS
from tests.sim.machine import Machine, explore
from tests.sim.replay import fix_hashes
from tests.sim.test_torture_endpoint import test_clients_whose_addresses_change
from tests.sim.test_torture_streams import test_ending_streams, test_lasting_streams_beside_datagrams
from warren.fabric.core.engine import Engine
from warren.fabric.engines import EngineName, engine

DOCS = Path(__file__).resolve().parents[2] / "docs"
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
    "clients whose addresses change": test_clients_whose_addresses_change,
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
        last = traceback.extract_tb(error.__traceback__)[-1]
        return job, f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {error}".splitlines()[0][:300]
    return job, ""


def jobs(seeds: int) -> list[Job]:
    """All of them, mixed, so that the progress says something about all."""
    every = [(kind, pairing, seed) for kind in KINDS for pairing in PAIRINGS for seed in range(seeds)]
    random.Random(0).shuffle(every)
    return every


class Journal:
    """What was found before, and what is found: a line of JSON for each run, {"run": …, "found": …}."""

    def __init__(self, path: Path | None) -> None:
        """None: nothing is kept."""
        text = path.read_text() if path is not None and path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a line that was cut off is made again
        self.known = {tuple(said["run"]): said["found"] for said in map(json.loads, whole.splitlines())}
        if path is not None and whole != text:
            path.write_text(whole)
        self._file = path.open("a") if path is not None else None

    def add(self, run: tuple[Any, ...], found: Any) -> None:
        """One more."""
        self.known[run] = found
        if self._file is not None:
            self._file.write(json.dumps({"run": run, "found": found}) + "\n")
            self._file.flush()


def progress(done: Iterator[tuple[Job, str]], count: int, journal: Journal) -> Iterator[tuple[Job, str]]:
    """Passes results on; a line each tenth, and for each bad one at once."""
    began = time.monotonic()
    for number, (job, fault) in enumerate(done, 1):
        journal.add(job, fault)
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


def table(seeds: int, bad: list[tuple[Job, str]]) -> str:
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
        "A run is bad when a stream stalls, loses, doubles or spoils a byte, or when its connection ends; where four",
        "clients' addresses change, also when a request goes unanswered or the endpoint keeps a connection too many.",
        "",
        f"{versions}; {time.strftime('%Y-%m-%d')}; bad runs of {seeds}:",
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


def model_table(found: list[tuple[int, int, str]]) -> str:
    """The report on the model."""
    lines = [
        "# The stateful model at length",
        "",
        "`make soak` makes this page.",
        "Real edges, connectors and an agent's side on the simulated network (tests/sim/machine.py): processes are",
        "killed, frozen and started, hosts roam, NATs forget, ways are cut, lossy, slow or narrow, routes come and go,",
        "flows carry checked bytes. An example is bad when a byte is wrong, a flow is lost that should live or hangs",
        "that should end, a bound is passed, an error is logged, or something does not work again once all is mended.",
        "",
        f"{time.strftime('%Y-%m-%d')}.",
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
    parser.add_argument("--journal", type=Path, metavar="FILE", help="keeps what was found, and goes on from it")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args(arguments)
    engine("native")  # says at once what is missing
    fine, journal = True, Journal(asked.journal)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        if asked.seeds:
            every = jobs(asked.seeds)
            left = [job for job in every if job not in journal.known]
            for _ in progress(iter(pool.map(run, left, chunksize=AT_ONCE)), len(left), journal):
                pass
            bad = [(job, journal.known[job]) for job in every if journal.known[job]]
            report("soak.md", table(asked.seeds, bad), write=asked.write)
            fine = not bad
        if asked.model:
            numbers = range(asked.seed, asked.seed + -(-asked.model // EXAMPLES))
            for number, *found in pool.map(model, [n for n in numbers if ("model", n) not in journal.known]):
                journal.add(("model", number), found)
                print(f"model, seed {number}: {found[1] or 'good'}", flush=True)
            rows = [(number, *journal.known["model", number]) for number in numbers]
            report("soak-model.md", model_table(rows), write=asked.write)
            fine &= not any(fault for _, _, fault in rows)
    return 0 if fine else 1


def report(page: str, text: str, *, write: bool) -> None:
    """Prints it, and puts it into docs/."""
    print(text, flush=True)
    if write:
        (DOCS / page).write_text(text)


if __name__ == "__main__":
    fix_hashes()
    sys.exit(main(sys.argv[1:]))
