"""A bad link in the lab: what each way of carrying TCP makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.figures import medians
from tests.bench.loads import Failed, Loads, Way
from tests.bench.path import bring_up, guarded, topology
from tests.bench.peers import Bare, Missing, Peer, WarrenNative, WireguardGo
from tests.bench.settings import BAD_LINK_START, Settings, tell
from warren.lab import Impairment, Lab

NETWORK = "home-line"
LINK = Impairment(delay=0.025, loss=0.01, rate=100_000_000, queue=0.05)
"""Each way: 50 ms there and back, 1 % lost, 100 Mbit/s."""


@dataclass(frozen=True, slots=True)
class Case:
    """`congestion`: of the TCP inside. `flags`: of Warren's daemons. `ways`: that are measured."""

    name: str
    peer: type[Peer]
    congestion: str = "cubic"
    flags: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ("up",)


CASES = (
    Case("bare path, TCP CUBIC", Bare),
    Case("bare path, TCP BBR (kernel)", Bare, "bbr"),
    Case("wireguard-go, CUBIC inside", WireguardGo),
    Case("wireguard-go, BBR inside", WireguardGo, "bbr"),
    Case("Warren native, own controller", WarrenNative, ways=("up", "down")),
    Case("Warren native, CUBIC", WarrenNative, flags=("--controller", "cubic")),
)


def measure(settings: Settings, only: Sequence[type[Peer]]) -> list[dict[str, Any]]:
    """Mbit/s of one TCP stream, and what the emulator of the link took of the processor."""
    return [guarded(case.name, partial(measure_case, case, settings)) for case in CASES if case.peer in only]


def measure_case(case: Case, settings: Settings) -> dict[str, Any]:
    said: dict[str, Any] = {"name": case.name, "missing": None, "rounds": []}
    try:
        with ready(case) as (peer, loads):
            peer.lab.impair(NETWORK, LINK)
            for _ in range(settings.rounds):
                said["rounds"].append(one_round(case, loads, settings))
                tell(f"bad link, {case.name}: {said['rounds'][-1]}")
            report = peer.lab.links.clear(NETWORK)
    except Missing as missing:
        return {**said, "missing": str(missing)}
    if report is not None:
        said["emulator"] = report.processor / report.seconds
        said["overflowed"] = report.overflowed
    said["medians"] = medians(said["rounds"])
    return said


@contextmanager
def ready(case: Case) -> Iterator[tuple[Peer, Loads]]:
    """A lab of its own in which the case's peer carries bytes; its link is not impaired yet. Raises Missing."""
    with Lab(topology("laptop", "payroll")) as lab:
        peer = WarrenNative(lab, case.flags) if case.peer is WarrenNative else case.peer(lab)
        loads = Loads(lab)
        bring_up(peer, loads)
        yield peer, loads


def one_round(case: Case, loads: Loads, settings: Settings) -> dict[str, float | None]:
    made: dict[str, float | None] = {}
    for way in case.ways:
        try:
            carried = loads.stream(way, settings.bad_link, congestion=case.congestion, omit=BAD_LINK_START)
            made[way] = carried.rate * 1000
        except Failed as failed:
            tell(f"bad link, {case.name}: {failed}")
            made[way] = None
    return made
