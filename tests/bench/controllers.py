"""Controllers on one link of the lab, clean and not: Warren with its own and with CUBIC, the kernel's CUBIC and BBR."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from tests.bench import badlink
from tests.bench.badlink import Case
from tests.bench.figures import NONE, get, medians, percent, table, written
from tests.bench.loads import Failed, Loads
from tests.bench.path import guarded
from tests.bench.peers import Bare, Missing, Peer, WarrenNative
from tests.bench.peers.peer import UP_WITHIN
from tests.bench.settings import Settings, tell
from warren.lab import Impairment, Lab, wait_until

CASES = tuple(case for case in badlink.CASES if case.peer in (Bare, WarrenNative))
START = 2
"""Seconds of each stream that are left out."""


def link(queue: float = 0.05, loss: float = 0.0) -> Impairment:
    """50 ms there and back, 100 Mbit/s, with so many seconds of queue and so much lost, each way."""
    return Impairment(delay=0.025, rate=100_000_000, queue=queue, loss=loss)


LINKS = {
    "clean, queue 10 ms": link(queue=0.01),
    "queue 25 ms": link(queue=0.025),
    "queue 50 ms": link(),
    "1 % lost": link(loss=0.01),
    "3 % lost": link(loss=0.03),
}


def measure(settings: Settings, only: Sequence[type[Peer]]) -> list[dict[str, Any]]:
    """Mbit/s of one TCP stream up, and the share of its packets that the queue dropped, on each link."""
    return [guarded(case.name, partial(measure_case, case, settings)) for case in CASES if case.peer in only]


def measure_case(case: Case, settings: Settings) -> dict[str, Any]:
    said: dict[str, Any] = {"name": case.name, "missing": None, "rounds": []}
    try:
        with badlink.ready(case) as (peer, loads):
            for _ in range(settings.rounds):
                said["rounds"].append(one_round(peer, loads, case, settings))
                tell(f"controllers, {case.name}: {said['rounds'][-1]}")
    except Missing as missing:
        said["missing"] = str(missing)
    said["links"] = medians(said["rounds"])
    return said


def one_round(peer: Peer, loads: Loads, case: Case, settings: Settings) -> dict[str, dict[str, float | None]]:
    return {title: on_link(peer, loads, impairment, case, settings) for title, impairment in LINKS.items()}


def on_link(
    peer: Peer, loads: Loads, impairment: Impairment, case: Case, settings: Settings
) -> dict[str, float | None]:
    """Each stream begins with a controller that knows nothing, as the kernel's do with each connection."""
    lab = peer.lab
    lab.impair(badlink.NETWORK, impairment)
    try:
        peer.renew()
        wait_until(loads.reachable, f"a byte through {peer.name}", UP_WITHIN)
        carried = loads.stream("up", settings.controllers, congestion=case.congestion, omit=START)
        return {"rate": carried.rate * 1000, "dropped": dropped(lab)}
    except (Failed, TimeoutError) as failed:
        tell(f"controllers, {case.name}: {failed}")
        return {"rate": None, "dropped": None}
    finally:
        lab.links.clear(badlink.NETWORK)


def dropped(lab: Lab) -> float:
    """The share of what was sent up that the queue before the limited rate had no room for."""
    said = json.loads(lab["home"].run(["tc", "-json", "-stats", "qdisc", "show", "dev", "wan0"]).stdout)
    queue = next(one for one in said if one["kind"] == "tbf")
    return float(queue["drops"] / max(1, queue["packets"] + queue["drops"]))


def rows(cases: Sequence[dict[str, Any]]) -> str:
    """A line for each controller."""
    lines = []
    for case in cases:
        cells = [_cell(case, title) for title in LINKS]
        lines.append([case["name"], *(cells if not case["missing"] else [case["missing"]] + [""] * (len(cells) - 1))])
    return table(["Mbit/s (dropped by the queue)", *LINKS], lines)


def _cell(case: dict[str, Any], title: str) -> str:
    rate, share = get(case, "links", title, "rate"), get(case, "links", title, "dropped")
    return NONE if rate is None else f"{written(rate, 1)} ({percent(share, 1)})"
