"""docs/benchmarks.md and .json: every figure comes from the run, none is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import badlink, controllers, engines, profile, verdicts
from tests.bench.figures import NONE, get, less, percent, table, total, written
from tests.bench.loads import OFFERED
from tests.bench.peers import Bare
from tests.bench.verdicts import WAYS

DOCS = Path(__file__).resolve().parents[2] / "docs"
WHERE = ("laptop", "hub", "site")
INTRODUCTION = """# Benchmarks

`make bench` makes this page, and `benchmarks.json` beside it, in one run; no figure is typed by hand. Machines differ
by a factor of two and more: only ratios within one run mean anything. [The resolver](benchmarks-dns.md) has a page of
its own.
"""
PATH = """The lab's laptop, edge host and site are network namespaces on one machine, with iperf3 and all programs on
its cores; MTU 1500, TCP CUBIC in every sender that meets a link (inside the agent's private namespace: the kernel's
default). "Hub" is the edge host; the bare path does not pass it. Settings of the
peers are as they come. Processor time is user and system time of the peer's own programs, memory their share (PSS)
after all loads; UDP's round trips are a thousand datagrams of 200 bytes a second.
"""


def page(said: dict[str, Any]) -> str:
    """The whole page; sections that the run has left out are not in it."""
    parts = [INTRODUCTION, _machine(said)]
    parts += ["## What is asked for\n", verdicts.rows(verdicts.verdicts(said)), ""]
    if said.get("paths"):
        parts += ["## The whole path\n", PATH, *_paths(said["paths"])]
    if said.get("bad_link"):
        parts += ["## A bad link\n", *_bad_link(said["bad_link"])]
    if said.get("controllers"):
        parts += ["## Controllers on one link\n", *_controllers(said)]
    if any(not one["missing"] for one in said.get("profiles", [])):
        parts += ["## Where the processor time goes\n", *_profiles(said["profiles"])]
    if said.get("engines"):
        parts += ["## Engines alone\n", *_engines(said["engines"])]
    return "\n".join(parts).rstrip() + "\n"


def write(said: dict[str, Any]) -> None:
    (DOCS / "benchmarks.md").write_text(page(said))
    (DOCS / "benchmarks.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def _machine(said: dict[str, Any]) -> str:
    its, settings = said["machine"], said["settings"]
    speeds = ", ".join(f"{name} {written(speed, 1)}" for name, speed in its["encrypts"].items())
    rounds = settings["rounds"]
    quick = " **A quick run: every row works, the figures say little.**" if rounds < 3 else ""
    return (
        f"{its['cores']} cores, {its['processor']}, {its['kernel']}, Python {its['python']}; one core encrypts, in "
        f"packets of 1,408 bytes, Gbit/s: {speeds}. "
        f"Medians of {rounds} round{'s' * (rounds != 1)}, {settings['one']} s for each stream.{quick}\n"
    )


def _paths(paths: list[dict[str, Any]]) -> list[str]:
    bare = next((one for one in paths if one["name"] == Bare.name), {})
    there = [one for one in paths if not one["missing"]]
    missing = [f"* {one['name']}: not measured: {one['missing']}" for one in paths if one["missing"]]
    versions = [f"* {one['name']}: {one['path']}; {one['version']}" for one in there]
    notes = [f"* {one['name']}: {note}" for one in there for note in one["notes"]]
    return [
        *[f"{_with(head, there, row)}\n" for head, row in ((SPEED, _speed), (COST, _cost))],
        f"{_with(DELAY, there, lambda one: _delay(one, bare))}\n",
        "\n".join([*versions, *missing]) + "\n",
        *(["What failed:\n", "\n".join(notes) + "\n"] if notes else []),
    ]


def _with(head: list[str], there: list[dict[str, Any]], row: Callable[[dict[str, Any]], list[str]]) -> str:
    return table(head, [[one["name"], *row(one)] for one in there])


SPEED = [
    "Gbit/s",
    "one TCP stream up",
    "down",
    "eight up",
    "down",
    "UDP up, 1,200 bytes, at most 1 % lost",
]


def _speed(one: dict[str, Any]) -> list[str]:
    middle, udp = one["medians"], one.get("udp")
    streams = [
        get(middle, "one_up", "gbit"),
        get(middle, "one_down", "gbit"),
        *map(middle.get, ("eight_up", "eight_down")),
    ]
    return [*(written(rate) for rate in streams), _carried(udp) if udp else NONE]


def _carried(udp: dict[str, float]) -> str:
    if not udp["gbit"]:
        return f"under {OFFERED[0] / 1000:g} ({percent(udp['beyond'], 1)} lost)"
    return f"{written(udp['gbit'])} ({percent(udp['lost'], 1)} lost)"


COST = ["core·s per Gbit, laptop + hub + site", "up", "down", "memory: laptop, hub, site, MiB"]


def _cost(one: dict[str, Any]) -> list[str]:
    made = []
    for way in WAYS:
        spent = (one["medians"].get(f"one_{way}") or {}).get("processor")
        each = " + ".join(written((spent or {}).get(where)) for where in WHERE)
        made.append(f"{each} = {written(total(spent))}" if spent else NONE)
    memory = ", ".join(written(one["memory"].get(where), 0) for where in WHERE) if one["memory"] else NONE
    return [*made, memory]


DELAY = [
    "ms",
    "added round trip, TCP, p50 / p99",
    "UDP round trip under one TCP stream up, p50 / p99",
    "down",
    "new TCP connections a second",
]


def _delay(one: dict[str, Any], bare: dict[str, Any]) -> list[str]:
    middle = one["medians"]
    own, base = middle.get("round_trip"), (bare.get("medians") or {}).get("round_trip")
    if one is bare:
        added = f"{written(get(own, 'p50'))} / {written(get(own, 'p99'))} in all"
    else:
        added = " / ".join(written(less(get(own, key), get(base, key))) for key in ("p50", "p99"))
    return [added, *(_loaded(middle.get(f"loaded_{way}")) for way in WAYS), _connections(middle.get("connections"))]


def _loaded(said: dict[str, float] | None) -> str:
    if not said:
        return NONE
    lost = f", {percent(said['lost'], 1)} lost" if said["lost"] else ""
    return f"{written(said['p50'], 1)} / {written(said['p99'], 1)}{lost}"


def _connections(said: dict[str, float] | None) -> str:
    if not said:
        return NONE
    return written(said["per_second"], 0) + (f" ({said['failed']:.0f} failed)" if said["failed"] else "")


def _bad_link(cases: list[dict[str, Any]]) -> list[str]:
    text = (
        f"One TCP stream over a link that is impaired each way ({badlink.LINK}), packets as large as on a wire. The "
        "link is emulated on the same cores: what that takes stands beside.\n"
    )
    lines = []
    for one in cases:
        rates = [written(get(one, "medians", way), 1) for way in WAYS]
        lines.append(
            [one["name"], *(rates if not one["missing"] else [one["missing"], ""]), percent(get(one, "emulator"))]
        )
    return [text, table(["Mbit/s", "up", "down", "emulator, of a core"], lines) + "\n"]


def _controllers(said: dict[str, Any]) -> list[str]:
    text = (
        f"One TCP stream up over a link of 100 Mbit/s and 50 ms in the lab, {said['settings']['controllers']} s after "
        f"the first {controllers.START}, medians of {said['settings']['rounds']}; loss is each way, on top of a queue "
        "of 50 ms. What Warren carries has CUBIC at the laptop too, and ends there; on the bare path the controller "
        "named is that of the sender. Each stream has a path that nothing is known of yet, Warren's too: its agent is "
        "started anew on each link.\n"
    )
    return [text, controllers.rows(said["controllers"]) + "\n"]


def _profiles(profiles: list[dict[str, Any]]) -> list[str]:
    text = (
        "Sampled at every tick of processor time while one TCP stream saturates the path. Core·s per Gbit, user and "
        "system; system calls count for who makes them. A sample is the innermost frame of Warren's own.\n"
    )
    head = ["", "", *profile.ORDER, "TUN, switch and pump / engine"]
    lines, dearest = [], []
    for one in profiles:
        for way in WAYS:
            daemons = one.get(way, {})
            for where, its in daemons.items():
                lines.append(
                    [f"{one['name']}, {way}", where, *(_part(its["parts"], part) for part in profile.ORDER), ""]
                )
                places = ", ".join(f"`{place}` {percent(share)}" for place, share in its["dearest"].items())
                dearest.append(f"* {one['name']}, {way}, {where}: {places}")
            if daemons:
                found, (ours, engine) = profile.shares(daemons), profile.ours_and_engine(daemons)
                cells = [percent(found.get(part)) for part in profile.ORDER]
                lines.append([f"{one['name']}, {way}", "**all**", *cells, f"{percent(ours)} / {percent(engine)}"])
    return [text, table(head, lines) + "\n", "Dearest functions:\n", "\n".join(dearest) + "\n"]


def _part(parts: dict[str, float], part: str) -> str:
    return written(parts[part], 3) if part in parts else NONE


def _engines(said: list[dict[str, Any]]) -> list[str]:
    text = (
        "In memory, without sockets, through the face that the daemons use, 1,444-byte packets with circuit header.\n"
    )
    return [text, engines.rows(said) + "\n"]
