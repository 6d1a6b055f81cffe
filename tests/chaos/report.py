"""docs/chaos.md, .json and .svg: every figure comes from the run, none is typed."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import NONE, table, written
from tests.chaos.kinds import KINDS
from tests.chaos.plot import plot

DOCS = Path(__file__).resolve().parents[2] / "docs"
IDLE = "idle flows"
INTRODUCTION = """# Chaos

`make chaos` makes this page, `chaos.json` and `chaos.svg` in one run (`make chaos-full`: at full length, twenty of each
kind or as many as `--each` says); no figure is typed by hand. In the lab two edges with their store in PostgreSQL, two
connectors of one tunnel and an agent run, and all the while: an ssh session in which ten lines a second come back, one
scp after another with checksums, ten PostgreSQL transactions a second, a TCP stream of 8 Mbit/s each way, every byte of
it compared, iperf3 at 4 Mbit/s, 100 UDP datagrams a second there and back, ping, and flows that are idle. One thing at
a time goes wrong, and the next one begins when every app goes on.

A *stall* is the longest time in which an app did not go on, its interval (0.02 to 0.2 s) included; *after* counts
only what lies after the end of the trouble; *first* is the time from that end until the app went on. A flow that does
not go on in 45 s is lost. *May*: of the flows lost, those of a connector process that was killed, which end with it.
"""

Event = dict[str, Any]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest rank; None without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def values(events: Sequence[Event], key: str, app: str | None = None) -> list[float]:
    """Of every app, or of one."""
    return [
        its[key]
        for event in events
        for name, its in event["apps"].items()
        if app in (None, name) and its[key] is not None
    ]


def median_of_worst(events: Sequence[Event], key: str) -> float | None:
    """Over events, the median of what the app fared that fared worst."""
    worst = [max(found) for event in events if (found := values([event], key))]
    return statistics.median(worst) if worst else None


def counts(events: Sequence[Event]) -> dict[str, int]:
    every = [its for event in events for its in event["apps"].values()]
    return {
        "lost": sum(len(its["lost"]) for its in every),
        "may": sum(min(its["may_lose"], len(its["lost"])) for its in every),
        "wrong": sum(its["wrong"] for its in every),
        "unopened": sum(len(its["unopened"]) for its in every),
        "sent": sum(its.get("sent", 0) for its in every),
        "missing": sum(its.get("missing", 0) for its in every),
    }


def by_kind(said: dict[str, Any]) -> dict[str, list[Event]]:
    found = {name: [event for event in said["events"] if event["kind"] == name] for name in KINDS}
    return {name: events for name, events in found.items() if events}


def targets(said: dict[str, Any]) -> list[tuple[str, str, bool | None]]:
    """What is asked for, what was found, and whether that is enough (None: not tried)."""
    kinds, asked = by_kind(said), []
    for title, name, key, limit in (
        ("one of two edges killed: stall, median, under 1 s", "edge-killed", "stall", 1.0),
        ("edge restarted alone: stall after it is back, median, under 1 s", "edge-restarted", "after", 1.0),
        ("another address: stall, median, under 1 s", "address", "stall", 1.0),
        ("ten seconds of blackout: until all go on, median, within 0.5 s of the link's return", "cut", "first", 0.5),
    ):
        found = median_of_worst(kinds.get(name, []), key)
        asked.append((title, written(found, unit=" s"), None if found is None else found < limit))
    for title, name in (("edge restarted alone", "edge-restarted"), ("one of two edges killed", "edge-killed")):
        if struck := kinds.get(name):
            lost = counts(struck)["lost"]
            asked.insert(0, (f"{title}: flows lost, 0", str(lost), lost == 0))
    every = counts(said["events"])
    beyond = every["lost"] - every["may"]
    half = sum(said["transactions"][word] for word in ("half done", "done twice", "confirmed and missing"))
    asked.append(("every kind: flows lost beyond what the failure table allows, 0", str(beyond), beyond == 0))
    asked.append(("every kind: bytes wrong, 0", str(every["wrong"]), every["wrong"] == 0))
    asked.append(("transactions half done, done twice or confirmed and missing, 0", str(half), half == 0))
    return asked


def page(said: dict[str, Any]) -> str:
    its = said["machine"]
    ran = (
        f"{its['cores']} cores, {its['processor']}, {its['kernel']}, Python {its['python']}; engine {said['engine']}; "
        f"seed {said['seed']}; {len(said['events'])} events{' at full length' if said['full'] else ''} in "
        f"{said['seconds'] / 60:.1f} minutes; load average at the beginning {said['load'][0]:.1f}, at the end "
        f"{said['load'][1]:.1f}.\n"
    )
    moved = ", ".join(f"{count} {word}" for word, count in said["transactions"].items())
    return "\n".join(
        [
            INTRODUCTION,
            ran,
            "## What is asked for\n",
            table(["", "found", ""], [[title, found, _word(met)] for title, found, met in targets(said)]) + "\n",
            "## Kind by kind\n",
            _kinds(said) + "\n",
            f"Transactions: {moved}. Files copied: {said['copied']}.\n",
            "![Stalls](chaos.svg)\n",
            "## App by app\n",
            "Stall, p50 / p99 / max, in seconds.\n",
            _apps(said) + "\n",
            *_lost(said),
        ]
    ).rstrip() + "\n"  # fmt: skip


def write(said: dict[str, Any]) -> None:
    (DOCS / "chaos.md").write_text(page(said))
    (DOCS / "chaos.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    (DOCS / "chaos.svg").write_text(picture(said))


def picture(said: dict[str, Any]) -> str:
    rows = {
        KINDS[name].title: {app: values(events, "stall", app) for app in _names(said)}
        for name, events in by_kind(said).items()
    }
    return plot("Stalls: one dot for each event and app", rows)


def _word(met: bool | None) -> str:
    return "not tried" if met is None else "yes" if met else "**no**"


def _names(said: dict[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys(n for event in said["events"] for n in event["apps"]) if name != IDLE]


def _three(found: Sequence[float]) -> str:
    return " / ".join(written(percentile(found, share)) for share in (0.5, 0.99, 1.0)) if found else NONE


def _kinds(said: dict[str, Any]) -> str:
    head = ["", "times", "stall p50 / p99 / max, s", "after", "first", "lost", "may", "wrong"]
    head += ["packets unanswered", "not opened, tried again"]
    rows = []
    for name, events in by_kind(said).items():
        n = counts(events)
        figures = [_three(values(events, key)) for key in ("stall", "after", "first")]
        lost = [str(n[key]) for key in ("lost", "may", "wrong")]
        packets = f"{n['missing']} of {n['sent']}"
        rows.append([KINDS[name].title, str(len(events)), *figures, *lost, packets, str(n["unopened"])])
    return table(head, rows)


def _apps(said: dict[str, Any]) -> str:
    names = _names(said)
    return table(
        ["", *names],
        [
            [KINDS[name].title, *(_three(values(events, "stall", app)) for app in names)]
            for name, events in by_kind(said).items()
        ],
    )


def _lost(said: dict[str, Any]) -> list[str]:
    lines = [
        f"* {KINDS[event['kind']].title}, event {number}: {name}: {len(its['lost'])} lost, may lose {its['may_lose']}: "
        + ", ".join(sorted(set(its["lost"])))
        for number, event in enumerate(said["events"], 1)
        for name, its in event["apps"].items()
        if its["lost"]
    ]
    return ["## Flows lost\n", *lines] if lines else []
