"""Events, one at a time, in an order that a seed repeats; after each of them the apps have time to recover."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tests.chaos.kinds import KINDS, Kind, Pace, settle
from tests.chaos.progress import Window
from tests.chaos.world import World

RECOVERS_WITHIN = 45.0
"""Seconds from the end of a thing after which a flow that does not go on counts as lost."""
IDLE_WITHIN = 10.0


def order(seed: int, kinds: Sequence[str]) -> Iterator[tuple[Kind, random.Random]]:
    """Without end, in rounds: every kind once, mixed, the long ones last, so that time ends before those; each event
    with its own source of chance."""
    draw = random.Random(seed)
    while True:
        for name in sorted(draw.sample(kinds, len(kinds)), key=lambda name: KINDS[name].long):
            yield KINDS[name], random.Random(draw.randrange(1 << 32))


def event(world: World, kind: Kind, pace: Pace, draw: random.Random) -> dict[str, Any]:
    """One of them; what each app has been through, as plain values."""
    settle(world, kind, pace)
    ways = world.ways()
    begin = time.monotonic()
    kind.act(world, pace, draw)
    back = time.monotonic()
    hung = recover(world, back, pace)
    world.idle.check(IDLE_WITHIN)
    window = Window(begin, back, time.monotonic())
    gone = {one for used in ways.values() for one in used} - world.connectors()
    tracks = [*(app.track for app in world.apps), world.idle.track]
    said = {track.name: track.says(window) for track in tracks}
    for name, its in said.items():
        its["may_lose"] = may_lose(world, name, ways, gone) if kind.lost == "of the connector" else 0
    return {
        "kind": kind.name,
        "lasted": round(back - begin, 3),
        "watched": round(window.end - begin, 3),
        "hung": hung,
        "ways": ways,
        "gone": sorted(gone),
        "apps": said,
    }


def may_lose(world: World, name: str, ways: dict[str, list[str]], gone: set[str]) -> int:
    """Flows of an app that ended with their connector. A copy lasts for seconds: the one that was lost may have begun
    after the look at the ways."""
    with_it = sum(one in gone for one in ways.get(name, []))
    return max(with_it, 1) if gone and name == world.copies.name else with_it


def recover(world: World, back: float, pace: Pace) -> list[str]:
    """Wait until every app has gone on; those that have not in time have lost their flow, and open another one."""
    while (late := world.went_on(back)) and time.monotonic() - back < RECOVERS_WITHIN:
        time.sleep(0.05)
    for app in late:
        app.track.lose(f"hung for {RECOVERS_WITHIN:g} s")
        app.again.set()
    time.sleep(max(0.0, back + pace.recovery - time.monotonic()))
    return [app.name for app in late]


def faults(said: dict[str, Any]) -> list[str]:
    """What of an event must not be: flows lost beyond what the failure table allows, and wrong bytes."""
    found = []
    for name, its in said["apps"].items():
        if len(its["lost"]) > its["may_lose"]:
            found.append(f"{said['kind']}: {name} lost {len(its['lost'])}: {', '.join(sorted(set(its['lost'])))}")
        if its["wrong"]:
            found.append(f"{said['kind']}: {name}: {its['wrong']} wrong")
    return found
