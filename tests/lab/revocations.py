"""python -m tests.lab.revocations [--trials 100] [--write]        (as root)

How long a flow outlives what it stands on: in each trial a device, a route or a tunnel is deleted, in turn, while an
app reads from a flow. From just before the edge's API is asked until the app has its reset. --write: into
docs/revocations.md. The exit code is 1 where the 99th percentile is above a second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.figures import table
from tests.bench.machine import machine
from tests.bench.settings import tell
from tests.chaos.report import percentile
from tests.lab import apps
from warren.edge.client import Client
from warren.lab import OFFICE, Lab, Topology, wait_until
from warren.lab.deployment import Deployment
from warren.lab.services import ECHO_PORT, start_services

DOCS = Path(__file__).resolve().parents[2] / "docs"
LIMIT = 1.0
"""Seconds; the 99th percentile."""
WITHIN = 30.0
NARROW = "10.10.0.10/32"
PATHS = {"route": "/v1/routes", "tunnel": "/v1/tunnels", "device": "/v1/devices"}


def topology() -> Topology:
    """The office with an echo server only."""
    hosts = [replace(host, services=("echo",) if host.name == "payroll" else ()) for host in OFFICE.hosts]
    return replace(OFFICE, hosts=tuple(hosts))


class Trials:
    """Each makes something that one flow stands on, has it deleted, and puts back what is needed for the next."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.deployment = Deployment(lab)
        self.client = Client(lab["edge"].path("/run/warren/edge.sock"))
        self.number = 0

    def up(self) -> None:
        start_services(self.lab)
        self.deployment.up()

    def route(self) -> float:
        self.deployment.warren(self.deployment.edge, "route", "ip", "add", NARROW, "--tunnel", "office")
        self._known()
        return self._ends("route", self._id("route", "value", NARROW))

    def tunnel(self) -> float:
        """With a connector of its own."""
        self.number += 1
        name, token = f"office-{self.number}", f"/root/office-{self.number}.token"
        its = self.deployment
        its.warren(its.edge, "tunnel", "create", name, "--token-file", token)
        its.carry(token, its.edge, its.connector)
        words = ["warren", "connector", "run", "--token-file", token]
        with its.connector.start(words, log=f"warren-{name}") as process:
            process.wait_for_output("connector ready", WITHIN)
            its.warren(its.edge, "route", "ip", "add", NARROW, "--tunnel", name)
            self._known()
            return self._ends("tunnel", self._id("tunnel", "name", name), "?force=true")

    def device(self) -> float:
        its = self.deployment
        seconds = self._ends("device", self._id("device", "name", "laptop"))
        its.daemons["agent"].stop()
        its.warren(its.laptop, "agent", "unenrol", "--yes", check=False)
        for host in (its.edge, its.laptop):
            host.run(["rm", "-f", "/root/laptop.key"])
        its.agent_up()
        return seconds

    def _known(self) -> None:
        wait_until(lambda: NARROW in str(self.deployment.status()), "the route at the agent", WITHIN)

    def _id(self, kind: str, field: str, value: str) -> str:
        return next(str(one["id"]) for one in self.client.get(PATHS[kind]) if one[field] == value)

    def _ends(self, kind: str, which: str, query: str = "") -> float:
        """Seconds from the deletion to the app's reset."""
        payroll = self.lab["payroll"].address
        with apps.connected(self.deployment.laptop, payroll, ECHO_PORT) as client:
            client.sendall(b"there?")
            client.recv(64)
            began = time.monotonic()
            self.client.delete(PATHS[kind], which, query)
            said = apps.read_until_error(client)[1]
            if said != "ECONNRESET":
                raise RuntimeError(f"{kind} deleted: the flow ended with {said or 'no error'}")
            return time.monotonic() - began


def measure(trials: int) -> dict[str, list[float]]:
    """Seconds of each trial, by what was deleted."""
    found: dict[str, list[float]] = {kind: [] for kind in PATHS}
    with Lab(topology()) as lab:
        its = Trials(lab)
        its.up()
        ways: dict[str, Callable[[], float]] = {"route": its.route, "tunnel": its.tunnel, "device": its.device}
        for number in range(trials):
            kind = list(PATHS)[number % len(PATHS)]
            found[kind].append(ways[kind]())
            tell(f"{number + 1} of {trials}: {kind}, {found[kind][-1]:.3f} s")
    return found


def page(found: dict[str, list[float]], its: dict[str, Any], load: tuple[float, float]) -> str:
    rows = {"everything": [one for values in found.values() for one in values], **found}
    head = ["deleted", "trials", "median, s", "p99, s", "longest, s"]
    lines = [
        [name, str(len(values)), f"{statistics.median(values):.3f}", f"{percentile(values, 0.99):.3f}",
         f"{max(values):.3f}"]
        for name, values in rows.items() if values
    ]  # fmt: skip
    where = f"{its['cores']} cores, {its['processor']}, {its['kernel']}, Python {its['python']}"
    return f"""# What is deleted ends

`python -m tests.lab.revocations --write` makes this page; no figure is typed by hand. In the lab an edge, a connector
and an agent run, an app reads from a flow, and a device, a route or a tunnel that the flow stands on is deleted. The
time is from just before the edge's API is asked until the app has its reset. Asked for: p99 within {LIMIT:g} s.

{where}; load average at the beginning {load[0]:.1f}, at the end {load[1]:.1f}.

{table(head, lines)}
"""


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.revocations", description="What is deleted ends.")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--write", action="store_true", help="into docs/revocations.md")
    asked = parser.parse_args(words)
    before = os.getloadavg()[0]
    found = measure(asked.trials)
    text = page(found, machine(), (before, os.getloadavg()[0]))
    print(text)
    if asked.write:
        (DOCS / "revocations.md").write_text(text)
    worst = percentile([one for values in found.values() for one in values], 0.99)
    return 1 if worst is None or worst > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
