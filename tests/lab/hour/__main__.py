"""python -m tests.lab.hour [--minutes 60] [--seed 1] [--write]        (as root; `make soak-lab`)

--write: docs/soak-lab.md and .json. The exit code is 1 if a flow was lost or hung, a byte was wrong, or memory grew.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from contextlib import suppress
from importlib import metadata
from typing import Any

from tests.bench import accounts
from tests.bench.machine import machine
from tests.bench.settings import tell
from tests.chaos.apps import App, Datagrams, Stream
from tests.chaos.progress import Track
from tests.chaos.world import LINE, WHOLE_WITHIN
from tests.lab.conftest import faults as faults_in_logs
from tests.lab.hour import report
from tests.lab.hour.memory import Samples
from tests.lab.hour.visits import Visits
from tests.lab.hour.weather import changes
from warren.fabric.engines import engine
from warren.lab import Impairment, Lab, wait_until
from warren.lab.deployment import Deployment

EVERY = 20.0
"""Seconds from one change to the next."""
SAMPLED = 10.0
"""Seconds from one look at the memory to the next."""
PIECES = 0.2
"""Seconds from one piece of a stream to the next: 0.8 Mbit/s each way, so that the machine has time for others."""
DATAGRAMS = 20
"""A second."""
LAST = 20.0
"""Seconds that the apps have to go on after the last change."""
Moments = list[tuple[float, str]]


def options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.hour", description="Warren on a link that stays bad.")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long [60]")
    parser.add_argument("--seed", type=int, default=1, help="of what happens [1]")
    parser.add_argument("--write", action="store_true", help="into docs/soak-lab.md and .json")
    return parser.parse_args(words)


def hour(asked: argparse.Namespace) -> dict[str, Any]:
    """Everything that the page says, as plain values."""
    engine("native")  # says at once what is missing
    said: dict[str, Any] = {"machine": machine(), "seed": asked.seed, "every": EVERY}
    said["engine"] = f"warren-quic {metadata.version('warren-quic')}"
    with Lab() as lab:
        deployment = Deployment(lab)
        deployment.up()
        laptop, payroll = lab["laptop"], lab["payroll"]
        apps: list[App] = [
            Stream(laptop, payroll, down=False, every=PIECES),
            Stream(laptop, payroll, down=True, every=PIECES),
            Datagrams(laptop, payroll, rate=DATAGRAMS),
            Visits(laptop, payroll, asked.seed),
        ]
        try:
            for app in apps:
                app.start()
            said |= watched(lab, deployment, apps, asked)
        finally:
            for app in apps:
                app.over.set()
            for app in apps:
                app.stop()
        said["logs"] = sorted(faults_in_logs(lab))
    return said


def watched(lab: Lab, deployment: Deployment, apps: list[App], asked: argparse.Namespace) -> dict[str, Any]:
    """From when every app goes on to the end."""
    begin = time.monotonic()
    wait_until(lambda: all(app.track.went_on_since(begin) for app in apps), "every app to go on", WHOLE_WITHIN)
    daemons = {role: process.pid for role, process in deployment.daemons.items()}
    samples, line = Samples(daemons), Line(lab)
    began, cost = time.monotonic(), processor(daemons)
    moments = through(line, began + asked.minutes * 60, asked.seed, samples)
    line.clear()
    ended = time.monotonic()
    with suppress(TimeoutError):  # the page says who hangs
        wait_until(lambda: all(app.track.went_on_since(ended) for app in apps), "every app to go on", LAST)
    seconds = time.monotonic() - began
    spent = [now - before for now, before in zip(processor(daemons), cost, strict=True)]
    return {
        "seconds": round(seconds, 1),
        "changes": dict(Counter(title for _, title in moments)),
        "line": {"arrived": line.arrived, "lost": line.lost / max(1, line.arrived)},
        "processor": spent[0] / seconds,
        "everything": (sum(spent) + line.processor) / seconds,
        "apps": {app.name: account(app.track, moments) for app in apps},
        "memory": samples.says(),
        "samples": {"at": samples.at, "held": samples.held, "own": samples.own},
    }


class Line:
    """The laptop's line, and what it has done so far: packets that arrived and were lost, the emulator's seconds."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.arrived, self.lost, self.processor = 0, 0, 0.0

    def impair(self, impairment: Impairment) -> None:
        self._count()
        self.lab.impair(LINE, impairment)

    def clear(self) -> None:
        self._count()
        self.lab.links.clear(LINE)
        self.lab.links.mend(LINE)

    def _count(self) -> None:
        if (report := self.lab.links.report(LINE)) is not None:
            self.arrived += report.arrived
            self.lost += report.lost
            self.processor += report.processor


def through(line: Line, until: float, seed: int, samples: Samples) -> Moments:
    """Change after change until then; when each began, and what it was."""
    moments: Moments = []
    began = sample_at = time.monotonic()
    for number, change in enumerate(changes(seed)):
        change_at = min(began + number * EVERY, until)
        while (now := time.monotonic()) < change_at:
            if now >= sample_at:
                samples.take(now - began)
                sample_at = now + SAMPLED
            time.sleep(max(0.0, min(change_at, sample_at) - time.monotonic()))
        if now >= until:
            break
        moments.append((now, change.title))
        tell(change.title)
        if change.impairment is not None:
            line.impair(change.impairment)
        else:
            change.act(line.lab)
    return moments


def processor(daemons: dict[str, int]) -> tuple[float, float]:
    """Seconds so far: of the daemons; of ourselves, the apps among us."""
    return accounts.processor(daemons.values()), time.process_time()


def account(track: Track, moments: Moments) -> dict[str, Any]:
    """What an app has been through. `after`: the change before its longest stall."""
    gaps = track.gaps(time.monotonic())
    longest = max(gaps, key=lambda gap: gap[1] - gap[0], default=None)
    before = [title for at, title in moments if longest is not None and at < longest[1]]
    return {
        "flows": sum(opened for _, opened in track.marks),
        "bytes": track.carried,
        "wrong": sum(count for _, count in track.wrong),
        "lost": [why for _, why in track.lost],
        "unopened": [why for _, why in track.unopened],
        "stall": round(longest[1] - longest[0], 3) if longest is not None else None,
        "after": before[-1] if before else "the start",
        "sent": len(track.sent),
        "missing": len(track.missing),
    }


def main(words: list[str]) -> int:
    asked = options(words)
    if os.geteuid() != 0:
        print("the lab needs namespaces: run it as root", file=sys.stderr)
        return 2
    said = hour(asked)
    print(report.page(said))
    if asked.write:
        report.write(said)
    return 1 if report.faults(said) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
