"""Two sites with one CIDR: the laptop's user chooses between them, among what the administrator allowed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.apps import connected, origin, read_until_error
from tests.lab.conftest import faults
from tests.lab.thread.test_flows import CURL
from warren.lab import TWO_SITES, Lab, Topology, wait_until
from warren.lab.deployment import ROUTE, UP_WITHIN, Deployment
from warren.lab.services import PAGE, Services

BRANCH = "branch"
BRANCH_PAGE = f"branch-payroll: {PAGE}"


@pytest.fixture(scope="module")
def topology() -> Topology:
    return TWO_SITES


@pytest.fixture(scope="module")
def deployment(lab: Lab, services: Services) -> Iterator[Deployment]:
    """With the branch's tunnel in a virtual network of its own, which the laptop's user may choose."""
    deployment = Deployment(lab)
    deployment.up()
    edge, host = deployment.edge, lab["branch-connector"]
    deployment.warren(edge, "tunnel", "create", BRANCH, "--token-file", "/root/branch.token")
    for words in (("ip", "add", ROUTE), ("host", "add", "payroll.internal"), ("host", "add", "stock.internal")):
        deployment.warren(edge, "route", *words, "--tunnel", BRANCH, "--vnet", BRANCH)
    deployment.warren(edge, "route", "ip", "add", "10.99.0.0/16", "--tunnel", "office")
    deployment.carry("/root/branch.token", edge, host)
    process = deployment.start("branch", host, "connector", "run", "--token-file", "/root/branch.token")
    process.wait_for_output("connector ready", UP_WITHIN)
    yield deployment
    assert faults(lab) == {}


@pytest.fixture
def allowed(deployment: Deployment) -> Iterator[Deployment]:
    """The user may choose the branch; at home at the beginning and afterwards."""
    deployment.warren(deployment.edge, "device", "set", "laptop", "--vnet", "default", "--allow-vnet", BRANCH)
    wait_until(lambda: networks(deployment)["choices"] == ["default", BRANCH], "the agent has heard of it")
    yield deployment
    deployment.warren(deployment.edge, "device", "set", "laptop", "--vnet", "default", "--allow-vnet", "")


def vnet(deployment: Deployment, *words: str) -> str:
    return deployment.warren(deployment.laptop, "agent", "vnet", *words)


def networks(deployment: Deployment) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(vnet(deployment, "show", "--json"))
    return said


def page(deployment: Deployment, url: str) -> str:
    return deployment.laptop.run([*CURL, url]).stdout


def test_the_user_changes_site_and_back(allowed: Deployment) -> None:
    assert vnet(allowed, "list") == "* default\n  branch\n"
    assert page(allowed, "http://10.10.0.10/") == PAGE
    assert vnet(allowed, "use", BRANCH) == "this device is in virtual network branch\n"
    assert vnet(allowed, "show") == "branch\n"
    assert page(allowed, "http://10.10.0.10/") == BRANCH_PAGE
    assert page(allowed, "http://payroll.internal/") == BRANCH_PAGE
    assert page(allowed, "http://stock.internal/") == BRANCH_PAGE
    assert allowed.status()["routes"]["installed"] == [ROUTE]
    vnet(allowed, "use", "default")
    assert page(allowed, "http://payroll.internal/") == PAGE
    assert allowed.laptop.run([*CURL, "http://stock.internal/"], check=False).returncode == 6


def test_what_was_not_allowed_is_refused(allowed: Deployment) -> None:
    refused = allowed.laptop.run(["warren", "agent", "vnet", "use", "board"], check=False)
    assert refused.returncode != 0
    assert "has not allowed this device that virtual network: there is default, branch" in refused.stderr
    assert networks(allowed)["vnet"] == "default"


def test_open_flows_go_on_where_they_began_or_are_reset(allowed: Deployment) -> None:
    def echo(accepted: socket.socket) -> None:
        while part := accepted.recv(100):
            accepted.sendall(part)

    allowed.lab["payroll"].run(["ip", "addr", "add", "10.99.0.5/32", "dev", "eth0"])
    allowed.lab["connector"].run(["ip", "route", "add", "10.99.0.0/16", "via", "10.10.0.10"])
    with (
        origin(allowed.lab["payroll"], echo) as port,
        connected(allowed.laptop, "10.10.0.10", port) as routed_in_both,
        connected(allowed.laptop, "10.99.0.5", 22) as routed_at_home_only,
    ):
        routed_in_both.sendall(b"before")
        assert routed_in_both.recv(100) == b"before"
        assert routed_at_home_only.recv(4) == b"SSH-"
        vnet(allowed, "use", BRANCH)
        routed_in_both.sendall(b"after")
        assert routed_in_both.recv(100) == b"after"
        routed_at_home_only.settimeout(5)
        assert read_until_error(routed_at_home_only)[1] == "ECONNRESET"


def test_the_choice_outlives_the_agent_and_its_permission_does_not(allowed: Deployment) -> None:
    vnet(allowed, "use", BRANCH)
    allowed.daemons["agent"].stop()
    allowed.run_agent()
    assert page(allowed, "http://10.10.0.10/") == BRANCH_PAGE
    allowed.warren(allowed.edge, "device", "set", "laptop", "--allow-vnet", "")
    wait_until(lambda: networks(allowed) == {"vnet": "default", "choices": ["default"]}, "the agent at home")
    assert page(allowed, "http://10.10.0.10/") == PAGE
