"""Two connectors of one tunnel: new flows are shared, one's no is not the tunnel's, and one's end is seen at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab import apps
from tests.lab.thread.test_connector import works
from warren.agent.peers import SPREAD
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process

WITHIN = 20.0
FLOWS = 48
SOON = 3.0
"""Seconds: what takes one on a machine that is not busy."""


class Replicas:
    """A second connector beside the usual one, with logs of their own."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.more: list[Process] = []

    def add(self, *words: str) -> Process:
        command = ["warren", "connector", "run", "--token-file", "/root/office.token", *words]
        process = self.deployment.connector.start(command, log=f"warren-connector-{time.monotonic_ns()}")
        self.more.append(process)
        process.wait_for_output("connector ready", WITHIN)
        wait_until(lambda: self.count() >= 2, "both connectors at the edge", WITHIN)
        return process

    def count(self) -> int:
        said = json.loads(self.deployment.warren(self.deployment.edge, "tunnel", "list", "--json"))
        return len(said[0]["connectors"])

    def shares(self) -> list[int]:
        """Flows through each connector, of all tunnels."""
        shares: dict[str, int] = {}
        for peer in self.deployment.status()["tunnels"]:
            shares[peer["connector"]] = shares.get(peer["connector"], 0) + peer["flows"]
        return sorted(flows for flows in shares.values() if flows)


@pytest.fixture
def replicas(deployment: Deployment) -> Iterator[Replicas]:
    found = Replicas(deployment)
    yield found
    for process in found.more:
        process.stop()
    if not deployment.daemons["connector"].running:
        deployment.run_connector()
    wait_until(lambda: works(deployment.laptop), "a flow through the usual connector", WITHIN)


@pytest.fixture
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


def test_new_flows_are_shared(deployment: Deployment, laptop: Host, replicas: Replicas) -> None:
    replicas.add()
    payroll = deployment.lab["payroll"]
    with apps.origin(payroll, apps.echo) as port, ExitStack() as clients:

        def more(flows: int) -> bool:
            for _ in range(flows):
                clients.enter_context(apps.connected(laptop, payroll.address, port))
            return len(replicas.shares()) == 2

        more(SPREAD)
        wait_until(lambda: more(2), "a flow through the second connector", WITHIN)
        more(FLOWS)
        small, large = replicas.shares()
        assert 2 * small >= large, "new flows go where fewer are"


def test_a_flow_that_one_connector_may_not_open_is_opened_by_the_other(
    deployment: Deployment, laptop: Host, replicas: Replicas
) -> None:
    deployment.daemons["connector"].stop()
    deployment.run_connector("--allow", "10.10.0.10/32:22")
    wait_until(lambda: apps.connect(laptop, "10.10.0.10", 22).error == "", "a flow through the narrow one", WITHIN)
    assert apps.connect(laptop, "10.10.0.10", 80).error == "EHOSTUNREACH"
    replicas.add()
    wait_until(lambda: works(laptop), "a flow through the wide one", WITHIN)
    for _ in range(10):
        assert apps.connect(laptop, "10.10.0.10", 80).error == ""
    deployment.daemons["connector"].stop()


def test_a_killed_connectors_flows_are_reset_and_new_ones_go_elsewhere_at_once(
    deployment: Deployment, laptop: Host, replicas: Replicas
) -> None:
    payroll, usual = deployment.lab["payroll"], deployment.daemons["connector"]
    with apps.origin(payroll, apps.read_until_error) as port, apps.connected(laptop, payroll.address, port) as client:  # type: ignore[arg-type]
        replicas.add()
        began = time.monotonic()
        usual.kill()
        client.settimeout(WITHIN)
        assert apps.read_until_error(client) == (b"", "ECONNRESET")
        assert time.monotonic() - began < SOON
        assert apps.connect(laptop, payroll.address, 80).error == ""
        assert time.monotonic() - began < 2 * SOON
    wait_until(lambda: replicas.count() == 1, "the edge to know of one connector", WITHIN)


def test_a_connector_that_stands_still_gets_no_new_flows_and_keeps_its_own(
    deployment: Deployment, laptop: Host, replicas: Replicas
) -> None:
    payroll, usual = deployment.lab["payroll"], deployment.daemons["connector"]
    with apps.origin(payroll, apps.echo) as port, apps.connected(laptop, payroll.address, port) as client:
        replicas.add()
        usual.freeze()
        try:
            wait_until(lambda: works(laptop), "a flow through the one that runs", WITHIN)
            for _ in range(5):
                assert apps.connect(laptop, payroll.address, 80).error == ""
        finally:
            usual.thaw()
        client.settimeout(WITHIN)
        client.sendall(b"after")
        assert client.recv(64) == b"after"
