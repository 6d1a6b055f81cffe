"""Two sites with the same CIDR and the same names in two virtual networks; the administrator moves the laptop.

The second tunnel's connector runs on the database's host, so that an origin sees which tunnel a flow came through.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.lab.apps import connect, connected, origin, read_all
from tests.lab.thread.test_names import short
from warren.lab import wait_until
from warren.lab.deployment import ROUTE, UP_WITHIN, Deployment
from warren.lab.host import Host

SECOND = "second"
FOLLOWED = 2.0
"""Seconds within which a running agent follows a change."""


@pytest.fixture(scope="module")
def two(deployment: Deployment) -> Iterator[Deployment]:
    """With the second tunnel, its connector and the same routes in the second virtual network."""
    edge, host = deployment.edge, deployment.lab["db"]
    deployment.warren(edge, "tunnel", "create", SECOND, "--token-file", "/root/second.token")
    for words in (("ip", "add", ROUTE), ("ip", "add", "10.99.0.0/16"), ("host", "add", "payroll.internal")):
        deployment.warren(edge, "route", *words, "--tunnel", SECOND, "--vnet", SECOND)
    deployment.carry("/root/second.token", edge, host)
    process = deployment.start("connector-2", host, "connector", "run", "--token-file", "/root/second.token")
    process.wait_for_output("connector ready", UP_WITHIN)
    yield deployment
    process.stop()
    deployment.daemons.pop("connector-2")
    deployment.warren(edge, "tunnel", "delete", SECOND, "--force")


@pytest.fixture
def at_home(two: Deployment) -> Iterator[Deployment]:
    """The laptop is in the first one at the beginning and afterwards."""
    yield two
    move(two, "default")


def move(deployment: Deployment, vnet: str) -> float:
    """Seconds until the agent's routes are those of that virtual network, from the end of the command on."""
    deployment.warren(deployment.edge, "device", "set", "laptop", "--vnet", vnet)
    began = time.monotonic()

    def followed() -> bool:
        said = deployment.status()
        return said["vnet"] == vnet and ("10.99.0.0/16" in said["routes"]["installed"]) == (vnet == SECOND)

    wait_until(followed, "the agent in the other virtual network")
    return time.monotonic() - began


def seen_from(deployment: Deployment, destination: str) -> str:
    """The address that payroll sees when the laptop connects to it."""

    def tell(accepted: socket.socket) -> None:
        accepted.sendall(accepted.getpeername()[0].encode())

    with origin(deployment.lab["payroll"], tell) as port, connected(deployment.laptop, destination, port) as app:
        return read_all(app).decode()


def synthetic(laptop: Host) -> str:
    (address,) = short(laptop, "payroll.internal")
    return address


def test_the_same_address_lies_in_either_site(at_home: Deployment) -> None:
    assert seen_from(at_home, "10.10.0.10") == "10.10.0.2"
    move(at_home, SECOND)
    assert seen_from(at_home, "10.10.0.10") == "10.10.0.20"
    move(at_home, "default")
    assert seen_from(at_home, "10.10.0.10") == "10.10.0.2"


def test_a_running_agent_follows_within_two_seconds(at_home: Deployment) -> None:
    assert move(at_home, SECOND) < FOLLOWED


def test_the_same_name_lies_in_either_site_under_another_address(at_home: Deployment) -> None:
    first = synthetic(at_home.laptop)
    assert seen_from(at_home, first) == "10.10.0.2"
    move(at_home, SECOND)
    second = synthetic(at_home.laptop)
    assert second != first
    assert seen_from(at_home, second) == "10.10.0.20"
    with origin(at_home.lab["payroll"], lambda sock: None) as port:
        assert connect(at_home.laptop, first, port).error == "EHOSTUNREACH"  # not the other site's payroll
    move(at_home, "default")
    assert synthetic(at_home.laptop) == first
    assert seen_from(at_home, first) == "10.10.0.2"


def test_a_virtual_network_without_routes_captures_nothing(at_home: Deployment) -> None:
    said = at_home.laptop
    at_home.warren(at_home.edge, "device", "set", "laptop", "--vnet", "empty")
    wait_until(lambda: at_home.status()["routes"]["installed"] == [], "no routes")
    assert at_home.status()["dns"]["zones"] == []
    assert "10.10.0.0/16" not in said.run(["ip", "route", "show", "table", "all"]).stdout


def test_an_open_flow_goes_on_in_the_site_where_it_began(at_home: Deployment) -> None:
    def echo(accepted: socket.socket) -> None:
        while part := accepted.recv(100):
            accepted.sendall(part + accepted.getpeername()[0].encode())

    with origin(at_home.lab["payroll"], echo) as port, connected(at_home.laptop, "10.10.0.10", port) as app:
        app.sendall(b"1")
        assert app.recv(100) == b"110.10.0.2"
        move(at_home, SECOND)
        app.sendall(b"2")
        assert app.recv(100) == b"210.10.0.2"


def test_the_edge_tells_either_route(two: Deployment) -> None:
    for vnet, tunnel in (("default", "office"), (SECOND, SECOND)):
        found = json.loads(two.warren(two.edge, "route", "get", "10.10.0.10", "--vnet", vnet, "--json"))
        assert found["route"]["tunnel"]["name"] == tunnel
        assert found["elsewhere"] == [SECOND if vnet == "default" else "default"]


@pytest.fixture
def agent_afterwards(two: Deployment) -> Iterator[None]:
    """As the others have it."""
    yield
    two.daemons["agent"].stop()
    two.run_agent()


def test_an_excluded_network_is_left_alone(two: Deployment, agent_afterwards: None) -> None:
    two.daemons["agent"].stop()
    process = two.start("agent", two.laptop, "agent", "up", "--exclude", "10.10.0.20/32", "--exclude", "10.99.0.0/16")
    wait_until(two.agent_ready, "the agent with its routes and resolver", UP_WITHIN)
    assert process.running
    assert two.status()["routes"]["excluded"] == ["10.10.0.20/32"]
    assert seen_from(two, "10.10.0.10") == "10.10.0.2"
    assert "warren0" in two.laptop.run(["ip", "route", "get", "10.10.0.10"]).stdout
    assert "warren0" not in two.laptop.run(["ip", "route", "get", "10.10.0.20"]).stdout
