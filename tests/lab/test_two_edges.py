"""Two edges on two hosts, one store in PostgreSQL on a third: what one learns the other knows, and one may die."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.lab import apps
from tests.lab.conftest import faults
from warren.lab import OFFICE, Lab, Topology, wait_until
from warren.lab.deployment import EDGE_ADDRESS, UP_WITHIN, Deployment
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.services import Services
from warren.lab.topology import HostSpec, Interface, Network, Route

SECOND_ADDRESS, STORE_ADDRESS = "203.0.113.11", "203.0.113.20"
STORE = f"postgresql+asyncpg://warren@{STORE_ADDRESS}/warren"
PASSWORD = "a-password-for-the-lab"
CUT = "table inet cut { chain input { type filter hook input priority 0; policy drop; }; }\n"
"""Silence: nobody hears that connections are gone."""
WITHIN = 30.0
SOON = 5.0
"""Seconds: what takes less than one or two on a machine that is not busy."""


def hosted(name: str, address: str, **more: Any) -> HostSpec:
    card = Interface("hosting", f"{address}/24")
    return HostSpec(name, (card,), (Route("default", "203.0.113.1"),), nameserver="192.0.2.53", **more)


@pytest.fixture(scope="module")
def topology() -> Topology:
    added = hosted("edge2", SECOND_ADDRESS), hosted("store", STORE_ADDRESS, services=("postgres",))
    networks = [network for network in OFFICE.networks if network.name != "hosting"]
    return replace(
        OFFICE,
        name="two-edges",
        hosts=(*OFFICE.hosts, *added),
        networks=(*networks, Network("hosting", switch="internet")),
    )


class TwoEdges(Deployment):
    """The usual deployment, with its store elsewhere, and an edge that is added while everything runs."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.second, self.store = lab["edge2"], lab["store"]

    def edge_up(self) -> None:
        make = f"CREATE ROLE warren LOGIN PASSWORD '{PASSWORD}';\nCREATE DATABASE warren OWNER warren;\n"
        self.store.run(["psql", "-q", "-h", "/run/postgresql", "postgres"], input=make, user="postgres")
        for host in (self.edge, self.second):
            host.write("/root/database.password", PASSWORD, 0o600)
            host.write("/etc/warren/edge.yaml", f"store: {STORE}\nstore_password_file: /root/database.password\n")
        self.warren(self.edge, "edge", "init", "--public", EDGE_ADDRESS)
        self.run_edge()

    def add_second(self) -> None:
        self.warren(self.edge, "edge", "add", "second", "--public", SECOND_ADDRESS, "--file", "/root/second.edge")
        self.carry("/root/second.edge", self.edge, self.second, binary=True)
        self.warren(self.second, "edge", "join", "/root/second.edge")
        self.run_second()

    def run_second(self) -> Process:
        process = self.start("edge2", self.second, "edge", "run")
        process.wait_for_output("edge runs", UP_WITHIN)
        return process

    def carry(self, path: str, source: Host, target: Host, *, binary: bool = False) -> None:
        target.write(path, source.path(path).read_bytes(), 0o600)

    def routes(self, edge: Host) -> set[str]:
        return {route["value"] for route in json.loads(self.warren(edge, "route", "ip", "list", "--json"))}

    def connected(self) -> int:
        """Edges that the agent is connected to, and all its connectors: the least of them."""
        agent = sum(edge["state"] == "connected" for edge in self.status()["edges"])
        there = [self.connectors(edge) for edge in (self.edge, self.second) if self.runs(edge)]
        return min(agent, sum(there))

    def runs(self, edge: Host) -> bool:
        return self.daemons["edge" if edge is self.edge else "edge2"].running

    def connectors(self, edge: Host) -> int:
        listed = json.loads(self.warren(edge, "tunnel", "list", "--json"))
        return min(1, len(listed[0]["connectors"]))


@pytest.fixture(scope="module")
def deployment(lab: Lab, services: Services) -> Iterator[TwoEdges]:
    deployment = TwoEdges(lab)
    deployment.up()
    deployment.add_second()
    wait_until(lambda: deployment.connected() == 2, "agent and connector at both edges, which nobody told them", WITHIN)
    yield deployment
    assert faults(lab) == {}


def echoes(client: Any) -> None:
    client.settimeout(WITHIN)
    client.sendall(b"there?")
    assert client.recv(64) == b"there?"


def both_back(deployment: TwoEdges) -> None:
    wait_until(lambda: deployment.connected() == 2, "agent and connector at both edges", 2 * WITHIN)


def test_what_one_edge_learns_the_other_knows(deployment: TwoEdges) -> None:
    for here, there, cidr in (
        (deployment.edge, deployment.second, "10.20.0.0/16"),
        (deployment.second, deployment.edge, "10.30.0.0/16"),
    ):
        deployment.warren(here, "route", "ip", "add", cidr, "--tunnel", "office")
        began = time.monotonic()
        wait_until(lambda: cidr in deployment.routes(there), "the route at the other edge", SOON)  # noqa: B023
        assert time.monotonic() - began < SOON
    listed = json.loads(deployment.warren(deployment.second, "edge", "list", "--json"))
    assert [(edge["address"], edge["own"]) for edge in listed["edges"]] == [
        (f"{EDGE_ADDRESS}:4433", False),
        (f"{SECOND_ADDRESS}:4433", True),
    ]


@pytest.mark.parametrize("which", ["edge", "edge2"])
def test_one_edge_is_killed(deployment: TwoEdges, which: str) -> None:
    """An open flow goes on, and new flows and names take the other edge."""
    payroll, laptop = deployment.lab["payroll"], deployment.laptop
    with apps.origin(payroll, apps.echo) as port, apps.connected(laptop, payroll.address, port) as client:
        echoes(client)
        deployment.daemons[which].kill()
        began = time.monotonic()
        assert apps.connect(laptop, payroll.address, port).error == ""
        new = time.monotonic() - began
        echoes(client)
        old = time.monotonic() - began
        answer = laptop.run(["dig", "+short", "+tries=1", "+time=10", "payroll.internal"]).stdout.strip()
        assert answer.startswith("100.80.")
        assert apps.connect(laptop, answer, port).error == ""
        print(f"{which} killed: new flow after {new:.2f} s, open flow after {old:.2f} s")
        assert max(new, old) < 4 * SOON
        deployment.run_edge() if which == "edge" else deployment.run_second()
        both_back(deployment)
        echoes(client)


def test_the_database_is_away(deployment: TwoEdges) -> None:
    """Flows are open and open anew, names are answered; what would have to be written is refused."""
    payroll, laptop = deployment.lab["payroll"], deployment.laptop
    with apps.origin(payroll, apps.echo) as port, apps.connected(laptop, payroll.address, port) as client:
        deployment.store.run(["nft", "-f", "-"], input=CUT)
        try:
            refused = deployment.edge.run(
                ["warren", "route", "ip", "add", "10.40.0.0/16", "--tunnel", "office"], check=False
            )
            assert "can't be read or changed now" in refused.stderr
            echoes(client)
            assert apps.connect(laptop, payroll.address, port).error == ""
            assert laptop.run(["dig", "+short", "db.internal"]).stdout.startswith("100.80.")
        finally:
            deployment.store.run(["nft", "delete", "table", "inet", "cut"])
    deployment.warren(deployment.edge, "route", "ip", "add", "10.50.0.0/16", "--tunnel", "office")
    wait_until(lambda: "10.50.0.0/16" in deployment.routes(deployment.second), "the route at the other edge", WITHIN)


def test_an_edge_is_removed(deployment: TwoEdges) -> None:
    payroll, laptop = deployment.lab["payroll"], deployment.laptop
    with apps.origin(payroll, apps.echo) as port, apps.connected(laptop, payroll.address, port) as client:
        deployment.warren(deployment.edge, "edge", "remove", "second")
        wait_until(lambda: len(deployment.status()["edges"]) == 1, "the agent to leave it", WITHIN)
        deployment.daemons["edge2"].stop()
        echoes(client)
        assert apps.connect(laptop, payroll.address, port).error == ""
    again = deployment.second.run(["warren", "edge", "run"], check=False)
    assert "not on the network's list" in again.stderr
