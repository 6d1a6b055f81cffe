"""Two edges on two hosts, one store in PostgreSQL on a third: what one learns the other knows, and one may die."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.lab import apps
from tests.lab.conftest import faults
from tests.lab.two_edges import EDGES, SECOND_ADDRESS, TWO_EDGES, WITHIN, TwoEdges
from tests.lab.waits import Waits
from warren.lab import Lab, Topology, wait_until
from warren.lab.deployment import EDGE_ADDRESS, UP_WITHIN
from warren.lab.host import Host
from warren.lab.services import ECHO_PORT, Services

SOON = 5.0
"""Seconds: what takes less than one or two on a machine that is not busy."""
LEASE = 12
"""Seconds, instead of ten minutes."""
LONG_AWAY = 12.0
"""Seconds, after which attempts to connect are many seconds apart."""
AWAY = 2.0
"""Seconds for which an edge is gone: longer than anybody may wait."""


@pytest.fixture(scope="module")
def topology() -> Topology:
    return TWO_EDGES


@pytest.fixture(scope="module")
def deployment(lab: Lab, services: Services) -> Iterator[TwoEdges]:
    deployment = TwoEdges(lab)
    deployment.settings = f"lease: {LEASE}\n"
    lab["connector"].write("/etc/warren/connector.yaml", f"lease: {LEASE}\n")
    deployment.up()
    deployment.add_second()
    deployment.both_there()  # nobody told them of the second one
    yield deployment
    assert faults(lab) == {}


def echoes(client: Any) -> None:
    client.settimeout(WITHIN)
    client.sendall(b"there?")
    assert client.recv(64) == b"there?"


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


def strike(deployment: TwoEdges, how: str, name: str) -> None:
    match how:
        case "killed":
            deployment.daemons[name].kill()
        case "frozen":
            deployment.daemons[name].freeze()
        case "cut off":
            deployment.cut_off(deployment.lab[name])


def mend(deployment: TwoEdges, how: str, name: str) -> None:
    match how:
        case "killed":
            deployment.run(name)
        case "frozen":
            deployment.daemons[name].thaw()
        case "cut off":
            deployment.rejoin(deployment.lab[name])


POLICY = "rules: [{name: no-games, action: block, names: ['*.games.example']}]\n"


def test_a_dns_policy_is_in_use_at_every_edge(deployment: TwoEdges) -> None:
    deployment.edge.write("/root/policy.yaml", POLICY)

    def verdict(edge: Host) -> str:
        answer: str = json.loads(deployment.warren(edge, "dns", "test", "games.example", "--json"))["verdict"]
        return answer

    assert verdict(deployment.second) != "blocked"
    deployment.warren(deployment.edge, "dns", "policy", "apply", "/root/policy.yaml")
    wait_until(lambda: verdict(deployment.second) == "blocked", "the policy at the other edge", SOON)


@pytest.mark.parametrize(
    ("how", "leads"),
    [("frozen", True), ("cut off", True), ("killed", True), ("killed", False)],
)
def test_one_edge_is(deployment: TwoEdges, how: str, leads: bool) -> None:
    """Open flows go on, and nobody waits long for a new one or for a name; nor when it comes back."""
    payroll, laptop = deployment.lab["payroll"], deployment.laptop
    with apps.origin(payroll, apps.echo) as port, apps.connected(laptop, payroll.address, port) as client:
        echoes(client)
        deployment.stands_by()
        leading = deployment.leading()
        name = next(name for name in EDGES if (name == leading) == leads)
        waits = Waits(laptop, payroll.address)
        with waits.going_on(client, "payroll.internal"):
            wait_until(lambda: waits.all_since(0.0), "the first of each")
            began = time.monotonic()
            strike(deployment, how, name)
            try:
                time.sleep(AWAY)
                struck = waits.longest(began)
            finally:
                mend(deployment, how, name)
            back = time.monotonic()
            wait_until(lambda: waits.all_since(back), "some of each after it", WITHIN)
            if how == "killed" and leads:  # one that stood by is missed at the next beat, 20 s later at most
                for word in ("device", "connector"):
                    deployment.daemons[name].wait_for_output(rf"session +{word}=", WITHIN)
            later = waits.longest(back)
        print(f"{name}, which {'led' if leads else 'stood by'}, {how}: waited {struck}, and when it was back {later}")
        assert not waits.failures
        assert max(struck.values()) < AWAY
        assert max(later.values()) < SOON


def echo_until_reset(sock: socket.socket) -> None:
    with suppress(ConnectionResetError):
        apps.echo(sock)


def test_the_database_is_away(deployment: TwoEdges) -> None:
    """Flows are open and open anew, names are answered, an edge starts from its copy; what would have to be written is
    refused. When the lease is over flows end, and none is granted."""
    payroll, laptop, began = deployment.lab["payroll"], deployment.laptop, time.monotonic()
    with apps.origin(payroll, echo_until_reset) as port, apps.connected(laptop, payroll.address, port) as client:
        deployment.cut_off(deployment.store)
        try:
            deployment.daemons["edge2"].kill()
            process = deployment.run("edge2")
            assert "this edge starts from its copy" in process.output()
            echoes(client)
            refused = deployment.second.run(
                ["warren", "route", "ip", "add", "10.40.0.0/16", "--tunnel", "office"], check=False
            )
            assert "can't be read or changed now" in refused.stderr
            if time.monotonic() - began < LEASE - 2:  # on a machine that is not too slow for it
                assert apps.connect(laptop, payroll.address, port).error == ""
                assert laptop.run(["dig", "+short", "db.internal"]).stdout.startswith("100.80.")
            assert apps.read_until_error(client) == (b"", "ECONNRESET")
            assert apps.connect(laptop, payroll.address, port + 1).error == "EHOSTUNREACH"
        finally:
            deployment.rejoin(deployment.store)
    deployment.warren(deployment.edge, "route", "ip", "add", "10.50.0.0/16", "--tunnel", "office")
    wait_until(lambda: "10.50.0.0/16" in deployment.routes(deployment.second), "the route at the other edge", WITHIN)


def test_an_edge_without_a_copy_waits_for_the_database(deployment: TwoEdges) -> None:
    deployment.cut_off(deployment.second, 5432)
    try:
        deployment.daemons["edge2"].kill()
        deployment.second.path("/var/lib/warren/edge/store.copy").unlink()
        process = deployment.start("edge2", deployment.second, "edge", "run")
        process.wait_for_output("there is no copy of it here: waiting for it", UP_WITHIN)
    finally:
        deployment.rejoin(deployment.second)
    process.wait_for_output("edge runs", UP_WITHIN)


def test_a_connector_that_dies_is_missed_by_an_edge_that_has_just_come_back(deployment: TwoEdges) -> None:
    """Its flows end, and are not held for a minute by their standby circuit: a connector whose attempts to show itself
    there have become rare does so at once."""
    deployment.daemons["edge2"].stop()
    time.sleep(LONG_AWAY)
    deployment.run_second()
    deployment.both_there()
    with apps.connected(deployment.laptop, deployment.lab["payroll"].address, ECHO_PORT) as client:
        echoes(client)
        deployment.stands_by()
        deployment.daemons["connector"].kill()
        client.settimeout(SOON)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    deployment.run_connector()
    deployment.both_there()


def test_an_edge_is_removed(deployment: TwoEdges) -> None:
    payroll, laptop = deployment.lab["payroll"], deployment.laptop
    with apps.origin(payroll, apps.echo) as port, apps.connected(laptop, payroll.address, port) as client:
        deployment.warren(deployment.edge, "edge", "remove", "second")
        wait_until(lambda: len(deployment.status()["edges"]) == 1, "the agent to leave it", WITHIN)
        deployment.daemons["connector"].wait_for_output(r" edges='?[\d.:]+'? revision=3", WITHIN)
        deployment.daemons["edge2"].stop()
        echoes(client)
        assert apps.connect(laptop, payroll.address, port).error == ""
    again = deployment.second.run(["warren", "edge", "run"], check=False)
    assert "not on the network's list" in again.stderr
