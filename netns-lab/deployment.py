"""Warren itself, put on the lab's hosts as a user would: the commands of the README, in their order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from warren.lab.host import Host
from warren.lab.lab import Lab
from warren.lab.process import Process
from warren.lab.waiting import wait_until

EDGE_ADDRESS = "203.0.113.10"
TUNNEL = "office"
ROUTE = "10.10.0.0/16"
HOSTNAMES = ("payroll.internal", "db.internal")
UP_WITHIN = 60.0
"""Seconds for a daemon to be there: imports, certificates, one handshake. An edge with its store in PostgreSQL takes
three seconds of a processor, and more than 15 where ten programs share it."""

Say = Callable[[str], None]


class Deployment:
    """An edge, a connector and an agent in one lab. `say(command)` is told of each step before it is done."""

    def __init__(self, lab: Lab, say: Say = lambda step: None) -> None:
        self.lab = lab
        self.edge, self.connector, self.laptop = lab["edge"], lab["connector"], lab["laptop"]
        self.daemons: dict[str, Process] = {}
        self._say = say

    def up(self) -> None:
        """Everything, until a flow can open."""
        self.edge_up()
        self.tunnel_up()
        self.agent_up()

    # ---- the steps ----

    def warren(self, host: Host, *words: str, check: bool = True, stdin: str | None = None) -> str:
        """One command; what it printed."""
        self._say(f"{host.name}$ warren {' '.join(words)}")
        return host.run(["warren", *words], check=check, input=stdin).stdout

    def start(self, role: str, host: Host, *words: str) -> Process:
        """One daemon."""
        self._say(f"{host.name}$ warren {' '.join(words)}")
        process = self.daemons[role] = host.start(["warren", *words], log=f"warren-{role}")
        return process

    def edge_up(self) -> None:
        self.warren(self.edge, "edge", "init", "--public", EDGE_ADDRESS)
        self.run_edge()

    def run_edge(self) -> Process:
        process = self.start("edge", self.edge, "edge", "run")
        process.wait_for_output("edge runs", UP_WITHIN)
        return process

    def tunnel_up(self) -> None:
        self.make_tunnel()
        self.connector_up()

    def make_tunnel(self) -> None:
        self.warren(self.edge, "tunnel", "create", TUNNEL, "--token-file", "/root/office.token")
        self.warren(self.edge, "route", "ip", "add", ROUTE, "--tunnel", TUNNEL)
        for name in HOSTNAMES:
            self.warren(self.edge, "route", "host", "add", name, "--tunnel", TUNNEL)

    def connector_up(self) -> None:
        self.carry("/root/office.token", self.edge, self.connector)
        self.run_connector()

    def run_connector(self, *more: str) -> Process:
        process = self.start(
            "connector", self.connector, "connector", "run", "--token-file", "/root/office.token", *more
        )
        process.wait_for_output("connector ready", UP_WITHIN)
        return process

    def agent_up(self) -> None:
        self.enrol(self.laptop, "laptop")
        self.run_agent()

    def enrol(self, host: Host, name: str) -> None:
        self.warren(self.edge, "device", "add", name, "--key-file", f"/root/{name}.key")
        self.carry(f"/root/{name}.key", self.edge, host)
        self.warren(host, "agent", "enrol", "--key-file", f"/root/{name}.key")

    def run_agent(self, *more: str) -> Process:
        process = self.start("agent", self.laptop, "agent", "up", *more)
        wait_until(self.agent_ready, "the agent with its routes and resolver", UP_WITHIN)
        return process

    # ---- looking ----

    def agent_ready(self) -> bool:
        process = self.daemons["agent"]
        if not process.running:
            raise RuntimeError(f"the agent ended\n{process.tail()}")
        said = self.status()
        return bool(said and said["routes"]["installed"] and not said["dns"]["system"].startswith("not set yet"))

    def status(self) -> dict[str, Any]:
        """`warren agent status --json`; empty while no agent answers."""
        done = self.laptop.run(["warren", "agent", "status", "--json"], check=False)
        said: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return said

    def carry(self, path: str, source: Host, target: Host) -> None:
        """A secret, from one host to another, as a person would over another channel."""
        self._say(f"{target.name}$ # {path} from {source.name}")
        target.write(path, source.read(path), 0o600)
