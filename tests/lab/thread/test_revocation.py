"""What is deleted ends at once: open flows, flows that are opening, and those whose edge was away meanwhile."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import apps
from tests.lab.thread.test_connector import works
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host

WITHIN = 20.0
SOON = 3.0
"""Seconds: what takes less than one on a machine that is not busy."""
NARROW = "10.10.0.0/24"
SILENT = "silent.internal"


@pytest.fixture
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


@pytest.fixture
def narrow_route(deployment: Deployment) -> Iterator[str]:
    """A route of its own for the origins: its id."""
    deployment.warren(deployment.edge, "route", "ip", "add", NARROW, "--tunnel", "office")
    wait_until(lambda: NARROW in str(deployment.status()), "the route at the agent")
    yield route_id(deployment)
    if route_id(deployment):
        delete_route(deployment)
    wait_until(lambda: works(deployment.laptop), "flows over the wide route", WITHIN)


def routes(deployment: Deployment) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(deployment.warren(deployment.edge, "route", "ip", "list", "--json"))
    return listed


def route_id(deployment: Deployment) -> str:
    return next((str(route["id"]) for route in routes(deployment) if route["value"] == NARROW), "")


def is_opening(deployment: Deployment, host: str) -> bool:
    flows = deployment.status()["flows"]
    return any(flow["destination"].startswith(host) and flow["state"] == "opening" for flow in flows)


def delete_route(deployment: Deployment) -> None:
    deployment.warren(deployment.edge, "route", "ip", "delete", NARROW)


def echo_until_reset(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        apps.echo(sock)


def test_a_deleted_route_ends_its_flows_and_no_other(deployment: Deployment, laptop: Host, narrow_route: str) -> None:
    payroll = deployment.lab["payroll"]
    by_name = laptop.run(["dig", "+short", "payroll.internal"]).stdout.strip()
    with (
        apps.origin(payroll, echo_until_reset) as port,
        apps.connected(laptop, payroll.address, port) as client,
        apps.connected(laptop, by_name, port) as other,
    ):
        for sock in (client, other):
            sock.sendall(b"before")
            assert sock.recv(64) == b"before"
        began = time.monotonic()
        delete_route(deployment)
        assert apps.read_until_error(client)[1] == "ECONNRESET"
        assert time.monotonic() - began < SOON
        other.sendall(b"after")
        assert other.recv(64) == b"after", "the flow by name stands on a route of its own"
        assert apps.connect(laptop, payroll.address, port).error == "", "the wide route leads there too"


def test_a_route_deleted_while_a_syn_is_held_refuses_it(deployment: Deployment, laptop: Host) -> None:
    deployment.warren(deployment.edge, "route", "host", "add", SILENT, "--tunnel", "office")
    wait_until(lambda: SILENT in deployment.status()["dns"]["zones"], "the zone at the agent", WITHIN)
    address = laptop.run(["dig", "+short", SILENT]).stdout.strip()
    found: list[apps.Outcome] = []
    app = threading.Thread(target=lambda: found.append(apps.connect(laptop, address, 80, retries=5)))
    app.start()
    wait_until(lambda: is_opening(deployment, SILENT), "the SYN held by the agent", WITHIN)
    began = time.monotonic()
    deployment.warren(deployment.edge, "route", "host", "delete", SILENT)
    app.join(60)
    assert found[0].error == "EHOSTUNREACH"
    assert time.monotonic() - began < 2 * SOON, "its kernel would go on for a minute"


def test_a_deleted_devices_flows_end(deployment: Deployment, laptop: Host) -> None:
    payroll = deployment.lab["payroll"]
    with apps.origin(payroll, apps.read_until_error) as port, apps.connected(laptop, payroll.address, port) as client:  # type: ignore[arg-type]
        began = time.monotonic()
        deployment.warren(deployment.edge, "device", "delete", "laptop")
        assert apps.read_until_error(client)[1] == "ECONNRESET"
        assert time.monotonic() - began < SOON
        assert apps.connect(laptop, payroll.address, 80).error != ""
    deployment.daemons["agent"].stop()
    deployment.warren(laptop, "agent", "unenrol", "--yes", check=False)
    for host in (deployment.edge, laptop):
        host.run(["rm", "-f", "/root/laptop.key"])
    deployment.agent_up()
    wait_until(lambda: works(laptop), "flows of the device that enrolled anew", WITHIN)
