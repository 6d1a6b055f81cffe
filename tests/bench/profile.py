"""Where the processor time of Warren's daemons goes under load: TUN, switch and pump beside the engine."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bench import accounts
from tests.bench.loads import Failed, Loads, Way
from tests.bench.path import bring_up, topology
from tests.bench.peers import Missing, WarrenNative
from tests.bench.peers.warren import WHERE
from tests.bench.settings import Settings, tell
from warren.lab import Lab, wait_until
from warren.lab.process import Process

PROGRAM = Path(__file__).with_name("profiled.py")
WRITTEN_TO = "/root/profile.json"
PARTS = {
    "warren.agent.capture.": "TUN",
    "warren.edge.switch.": "switch",
    "warren.fabric.aio.pump": "pump",
    "warren.fabric.engines.": "engine",
    "warren.fabric.aio.udp": "UDP socket",
    "warren.fabric.aio.": "driving",
    "warren.fabric.core.": "credit, flows",
}
"""Which part of the program a module belongs to, by the first start of its name that fits; all else is `OTHER`."""
OTHER = "other"
OURS = ("TUN", "switch", "pump")
"""Together they take less than the engine does: what is asked for."""
ORDER = (*OURS, "engine", "UDP socket", "driving", "credit, flows", OTHER)


def part_of(place: str) -> str:
    return next((part for start, part in PARTS.items() if place.startswith(start)), OTHER)


def measure(kind: type[WarrenNative], settings: Settings) -> dict[str, Any]:
    """Per direction and daemon: processor seconds per Gbit of each part, and the dearest functions."""
    said: dict[str, Any] = {"name": kind.name, "missing": None}
    with Lab(topology()) as lab:
        peer = profiled(kind, lab)
        try:
            loads = Loads(lab)
            bring_up(peer, loads)
        except Missing as missing:
            return {**said, "missing": str(missing)}
        ways: tuple[Way, ...] = ("up", "down")
        for way in ways:
            try:
                said[way] = under_load(peer, loads, way, settings)
            except (Failed, TimeoutError) as error:
                return {**said, "missing": str(error).splitlines()[0]}
            tell(f"profile, {kind.name}, {way}: {shares(said[way])}")
    return said


def profiled(kind: type[WarrenNative], lab: Lab) -> WarrenNative:
    """A peer whose daemons can be sampled."""
    return kind(lab, before=(sys.executable, str(PROGRAM), WRITTEN_TO))


def under_load(peer: WarrenNative, loads: Loads, way: Way, settings: Settings) -> dict[str, Any]:
    daemons = peer.deployed.daemons
    for daemon in daemons.values():
        daemon.signal(signal.SIGUSR1)
    before = {role: accounts.processor([daemon.pid]) for role, daemon in daemons.items()}
    carried = loads.stream(way, settings.profile)
    spent = {role: accounts.processor([daemon.pid]) - before[role] for role, daemon in daemons.items()}
    made = {}
    for role, daemon in daemons.items():
        samples = collect(peer.lab[daemon.host].path(WRITTEN_TO), daemon)
        made[WHERE[role]] = divided(samples, spent[role] / carried.gbits)
    return made


def collect(path: Path, daemon: Process) -> dict[str, int]:
    daemon.signal(signal.SIGUSR2)
    wait_until(path.exists, "the profile of a daemon", 10)
    said: dict[str, int] = json.loads(path.read_text())
    path.unlink()
    return said


def divided(samples: dict[str, int], seconds: float) -> dict[str, Any]:
    """`seconds` of a daemon, divided among the parts as the samples are; its five dearest functions."""
    count = sum(samples.values()) or 1
    parts: Counter[str] = Counter()
    for place, number in samples.items():
        parts[part_of(place)] += number
    dearest = sorted(samples.items(), key=lambda one: -one[1])[:5]
    return {
        "parts": {part: parts[part] / count * seconds for part in ORDER if parts[part]},
        "dearest": {place.removeprefix("warren."): number / count for place, number in dearest},
        "samples": count,
    }


def shares(way: dict[str, Any]) -> dict[str, float]:
    """Of all daemons together: each part's share of the processor time."""
    sums: Counter[str] = Counter()
    for daemon in way.values():
        sums.update(daemon["parts"])
    every = sum(sums.values()) or 1.0
    return {part: round(sums[part] / every, 3) for part in ORDER if sums[part]}


def ours_and_engine(way: dict[str, Any]) -> tuple[float, float]:
    """Shares of TUN, switch and pump together, and of the engine."""
    found = shares(way)
    return sum(found.get(part, 0.0) for part in OURS), found.get("engine", 0.0)
