"""python -m tests.chaos [--minutes 10] [--full] [--each 20] [--kinds cut,loss] [--seed 1] [--write]      (as root)

--full: at full length, and so many of each kind as --each says, whatever --minutes says: twenty take five hours.
--write: into docs/. An interrupt (^C) ends it early; what has happened until then is told and written. The exit code is
1 if a flow was lost that the failure table lets live, or a byte was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import Any

from tests.bench.machine import machine
from tests.bench.settings import tell
from tests.chaos import report
from tests.chaos.kinds import FULL, KINDS, USUAL
from tests.chaos.run import event, faults, order
from tests.chaos.world import TOPOLOGY, World
from warren.lab import Lab


def options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Warren while things go wrong.")
    parser.add_argument("--minutes", type=float, default=10.0, help="about how long [10]; each kind once takes eight")
    parser.add_argument("--full", action="store_true", help="at full length, and so many as --each says")
    parser.add_argument("--each", type=int, default=20, help="events of each kind in a full run [20]")
    parser.add_argument("--kinds", default="", help=f"only these, with commas between: {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the lengths [1]")
    parser.add_argument("--write", action="store_true", help="into docs/chaos.md, .json and .svg")
    asked = parser.parse_args(words)
    if asked.each < 1:
        parser.error(f"--each {asked.each}: it takes at least one event of each kind")
    asked.kinds = asked.kinds.split(",") if asked.kinds else list(KINDS)
    if unknown := set(asked.kinds) - set(KINDS):
        parser.error(f"no kind {', '.join(sorted(unknown))}: there is {', '.join(KINDS)}")
    return asked


def chaos(asked: argparse.Namespace) -> dict[str, Any]:
    """Everything that the report says, as plain values."""
    said: dict[str, Any] = {"machine": machine(), "seed": asked.seed, "full": asked.full, "events": []}
    load = os.getloadavg()[0]
    with Lab(TOPOLOGY) as lab:
        world = World(lab)
        try:
            world.up()
            tell("every app goes on")
            began = time.monotonic()
            with contextlib.suppress(KeyboardInterrupt):
                happen(world, asked, said["events"])
            said["engine"] = world.deployment.status()["engine"]
            said["seconds"] = round(time.monotonic() - began, 1)
        finally:
            world.down()
        said["transactions"] = world.transactions.account()
    said |= {"load": [load, os.getloadavg()[0]], "copied": world.copies.copied}
    return said


def happen(world: World, asked: argparse.Namespace, events: list[dict[str, Any]]) -> None:
    """One thing after another, until there were enough; `events` has those that are over."""
    began, enough = time.monotonic(), asked.each * len(asked.kinds)
    for number, (kind, draw) in enumerate(order(asked.seed, asked.kinds)):
        spent = time.monotonic() - began
        if number >= enough if asked.full else spent > asked.minutes * 60:
            break
        one = event(world, kind, FULL if asked.full else USUAL, draw)
        events.append(one)
        far = f"{number + 1} of {enough}" if asked.full else f"minute {spent / 60:.0f} of {asked.minutes:g}"
        tell(f"{far}: {kind.title}: {'; '.join(faults(one)) or 'all well'}, longest stall {longest(one)}")


def longest(one: dict[str, Any]) -> str:
    name, its = max(one["apps"].items(), key=lambda pair: pair[1]["stall"] or 0.0)
    return f"{its['stall'] or 0.0:.2f} s ({name})"


def main(words: list[str]) -> int:
    asked = options(words)
    said = chaos(asked)
    print(report.page(said))
    if asked.write:
        report.write(said)
    return 1 if any(faults(one) for one in said["events"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
