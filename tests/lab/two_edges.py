"""Two edges on two hosts, and their store in PostgreSQL on a third."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from warren.lab import OFFICE, Lab, Topology, wait_until
from warren.lab.deployment import EDGE_ADDRESS, UP_WITHIN, Deployment
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.topology import HostSpec, Interface, Network, Route

SECOND_ADDRESS, STORE_ADDRESS = "203.0.113.11", "203.0.113.20"
STORE = f"postgresql+asyncpg://warren@{STORE_ADDRESS}/warren"
PASSWORD = "a-password-for-the-lab"
EDGES = ("edge", "edge2")
"""Hosts and roles."""
SILENCE = "table inet cut { %s }\n"
CHAIN = "chain %s { type filter hook %s priority 0; %s }; "
WITHIN = 30.0
"""Seconds until everybody has found everybody."""


def hosted(name: str, address: str, **more: Any) -> HostSpec:
    """A host beside the edge."""
    card = Interface("hosting", f"{address}/24")
    return HostSpec(name, (card,), (Route("default", "203.0.113.1"),), nameserver="192.0.2.53", **more)


def _topology() -> Topology:
    added = hosted("edge2", SECOND_ADDRESS), hosted("store", STORE_ADDRESS, services=("postgres",))
    networks = [network for network in OFFICE.networks if network.name != "hosting"]
    return replace(
        OFFICE,
        name="two-edges",
        hosts=(*OFFICE.hosts, *added),
        networks=(*networks, Network("hosting", switch="internet")),
    )


TWO_EDGES = _topology()


class TwoEdges(Deployment):
    """The usual deployment, with its store elsewhere, and an edge that is added while everything runs. The servers of
    the lab run already."""

    settings = ""
    """Further lines of each edge.yaml."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.second, self.store = lab["edge2"], lab["store"]

    def edge_up(self) -> None:
        make = f"CREATE ROLE warren LOGIN PASSWORD '{PASSWORD}';\nCREATE DATABASE warren OWNER warren;\n"
        self.store.run(["psql", "-q", "-h", "/run/postgresql", "postgres"], input=make, user="postgres")
        for host in (self.edge, self.second):
            host.write("/root/database.password", PASSWORD, 0o600)
            said = f"store: {STORE}\nstore_password_file: /root/database.password\n{self.settings}"
            host.write("/etc/warren/edge.yaml", said)
        self.warren(self.edge, "edge", "init", "--public", EDGE_ADDRESS)
        self.run_edge()

    def add_second(self) -> None:
        self.warren(self.edge, "edge", "add", "second", "--public", SECOND_ADDRESS, "--file", "/root/second.edge")
        self.second.write("/root/second.edge", self.edge.path("/root/second.edge").read_bytes(), 0o600)
        self.warren(self.second, "edge", "join", "/root/second.edge")
        self.run_second()

    def run_second(self) -> Process:
        return self.run("edge2")

    def run(self, name: str) -> Process:
        """This edge, by the name of its host."""
        process = self.start(name, self.lab[name], "edge", "run")
        process.wait_for_output("edge runs", UP_WITHIN)
        return process

    def routes(self, edge: Host) -> set[str]:
        return {route["value"] for route in json.loads(self.warren(edge, "route", "ip", "list", "--json"))}

    def connected(self) -> int:
        """Edges that the agent is connected to, and all its connectors: the least of them."""
        agent = sum(edge["state"] == "connected" for edge in self.status()["edges"])
        return min(agent, sum(bool(self.connectors(name)) for name in EDGES if self.daemons[name].running))

    def connectors(self, name: str) -> int:
        """Those that this edge knows of."""
        listed = json.loads(self.warren(self.lab[name], "tunnel", "list", "--json"))
        return len(listed[0]["connectors"])

    def both_there(self) -> None:
        wait_until(lambda: self.connected() == 2, "agent and connector at both edges", 2 * WITHIN)

    def stands_by(self) -> None:
        """Until every peer connection has a standby circuit."""

        def all_have() -> bool:
            peers = self.status().get("tunnels", [])
            return bool(peers) and all(peer["standby"] for peer in peers)

        wait_until(all_have, "a standby circuit for each peer connection", 2 * WITHIN)

    def leading(self) -> str:
        """The edge through which the agent's first peer connection goes now, by the name of its host."""
        address = self.status()["tunnels"][0]["edge"].rpartition(":")[0]
        return "edge" if address == EDGE_ADDRESS else "edge2"

    def cut_off(self, host: Host, port: int = 0) -> None:
        """Silence, both ways: nobody hears that its connections are gone. `port`: of that TCP port at others only."""
        rules = f"tcp sport {port} drop;", f"tcp dport {port} drop;"
        hooks = zip(("input", "output"), rules if port else ("policy drop;",) * 2, strict=True)
        host.run(["nft", "-f", "-"], input=SILENCE % "".join(CHAIN % (hook, hook, rule) for hook, rule in hooks))

    def rejoin(self, host: Host) -> None:
        """The end of `cut_off`."""
        host.run(["nft", "delete", "table", "inet", "cut"])
