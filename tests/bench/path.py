"""Each peer in a lab of its own: streams, datagrams, round trips, connections; what they cost."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from tests.bench import accounts
from tests.bench.figures import medians, total, written
from tests.bench.loads import Failed, Loads, Way
from tests.bench.peers.peer import UP_WITHIN, Missing, Peer
from tests.bench.settings import Settings, tell
from warren.lab import OFFICE, Lab, Topology, wait_until

RATE = 1000
"""Datagrams a second under load."""
BEGINS = 3
"""Seconds that a background load lasts beyond the measurement."""
REUSE = {"net.ipv4.tcp_tw_reuse": "1"}
"""Thousands of short connections between two addresses would run out of ports."""
CONGESTION = "cubic"


def topology(*free: str) -> Topology:
    """The office; every TCP sender that chooses none uses CUBIC, but on the hosts named (where iperf3 chooses)."""
    hosts = tuple(
        replace(host, sysctls={**host.sysctls, **REUSE}, congestion=None if host.name in free else CONGESTION)
        for host in OFFICE.hosts
    )
    return replace(OFFICE, hosts=hosts)


def bring_up(peer: Peer, loads: Loads) -> None:
    """Until a byte goes there and back. Raises Missing, also with the reason why it does not."""
    try:
        peer.up()
        wait_until(loads.reachable, f"a byte through {peer.name}", UP_WITHIN)
    except Missing:
        raise
    except Exception as error:  # of a program that is not ours: its row says so
        raise Missing(f"does not come up: {str(error).strip().splitlines()[0][:200]}") from error


def guarded(name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `run` says; a row with the reason where it fails, for the other rows are worth having."""
    try:
        return run()
    except Exception as error:
        traceback.print_exc()
        return {"name": name, "missing": f"failed: {(str(error) or repr(error)).strip().splitlines()[0][:200]}"}


def measure(kinds: Sequence[type[Peer]], settings: Settings) -> list[dict[str, Any]]:
    """Everything of every peer, as plain values; `missing` says why there is nothing of one.

    All stand beside each other, each in a lab of its own, and take turns at being measured: a machine that is slower
    for a minute is so for all of them."""
    with ExitStack() as labs:
        found = [_stand(kind, settings, labs) for kind in kinds]
        for number in range(settings.rounds):
            for said, measuring in found:
                if measuring is not None:
                    said["rounds"].append(measuring.round(number))
        for said, measuring in found:
            if measuring is not None:
                said["udp"] = measuring.datagrams()
                said["memory"] = measuring.memory()
                said["medians"] = medians(said["rounds"])
    return [said for said, _ in found]


def _stand(kind: type[Peer], settings: Settings, labs: ExitStack) -> tuple[dict[str, Any], Measuring | None]:
    """A peer that is up, or None beside the reason."""
    said: dict[str, Any] = {"name": kind.name, "path": kind.path, "missing": None, "notes": [], "rounds": []}
    try:
        lab = labs.enter_context(Lab(topology()))
        peer = kind(lab)
        said["version"] = peer.version
        loads = Loads(lab)
        bring_up(peer, loads)
    except Exception as error:  # its row says so, and the other rows are worth having
        if not isinstance(error, Missing):
            traceback.print_exc()
        said["missing"] = (str(error) or repr(error)).strip().splitlines()[0][:200]
        tell(f"{kind.name}: {said['missing']}")
        return said, None
    tell(f"{kind.name} is up: {said['version']}")
    return said, Measuring(peer, loads, settings, said["notes"])


class Measuring:
    """What fails is None and leaves a note; the rest goes on."""

    def __init__(self, peer: Peer, loads: Loads, settings: Settings, notes: list[str]) -> None:
        self._peer, self._loads, self._settings, self._notes = peer, loads, settings, notes

    def round(self, number: int) -> dict[str, Any]:
        settings, loads = self._settings, self._loads
        made: dict[str, Any] = {}
        ways: tuple[Way, ...] = ("up", "down")
        for way in ways:
            made[f"one_{way}"] = self._try(partial(self._stream, way))
            if (core := self._try(self._peer.bare_core)) is not None:
                made[f"core_{way}"] = core
            made[f"eight_{way}"] = self._try(partial(self._eight, way))
            if self._peer.udp:
                made[f"loaded_{way}"] = self._try(partial(self._loaded, way))
        made["round_trip"] = self._try(lambda: loads.round_trip(settings.round_trips))
        made["connections"] = self._try(lambda: loads.connections(settings.connections))
        tell(f"{self._peer.name}, round {number + 1} of {settings.rounds}: {summary(made)}")
        return made

    def memory(self) -> dict[str, float]:
        """MiB of each daemon."""
        return {where: accounts.memory(pids) for where, pids in self._peer.daemons().items()}

    def datagrams(self) -> dict[str, float] | None:
        return self._try(lambda: self._loads.udp("up", self._settings.udp)) if self._peer.udp else None

    def _stream(self, way: Way) -> dict[str, Any]:
        """Gbit/s and processor seconds per Gbit of each daemon."""
        daemons = self._peer.daemons()
        before = {where: accounts.processor(pids) for where, pids in daemons.items()}
        carried = self._loads.stream(way, self._settings.one)
        spent = {where: accounts.processor(pids) - before[where] for where, pids in daemons.items()}
        return {"gbit": carried.rate, "processor": {where: each / carried.gbits for where, each in spent.items()}}

    def _eight(self, way: Way) -> float:
        return self._loads.stream(way, self._settings.eight, streams=8).rate

    def _loaded(self, way: Way) -> dict[str, float]:
        with self._loads.background(way, self._settings.loaded + BEGINS + 5):
            return self._loads.datagrams(self._settings.loaded * RATE, RATE)

    def _try(self, measure: Callable[[], Any]) -> Any:
        try:
            return measure()
        except (Failed, TimeoutError, RuntimeError, ZeroDivisionError) as error:
            note = (str(error) or repr(error)).strip().splitlines()[0]
            self._notes.append(note)
            tell(f"{self._peer.name}: {note}")
            return None


def summary(made: dict[str, Any]) -> str:
    """One line of progress."""
    parts = []
    for way in ("up", "down"):
        one = made[f"one_{way}"] or {}
        spent = written(total(one.get("processor")))
        parts.append(
            f"{way} {written(one.get('gbit'))} Gbit/s ({spent} core·s/Gbit), 8: {written(made[f'eight_{way}'])}"
        )
    return "; ".join(parts)
