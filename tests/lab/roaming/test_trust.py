"""What is taken back ends, whatever is down, restarted, restored or set to another time meanwhile."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from tests.lab import apps
from tests.lab.roaming.place import Roaming
from tests.lab.roaming.talk import WITHIN, Talk, talk
from warren.lab import wait_until

LEASE = 2.0
CLOCK_HEARD = 1.1
"""Seconds until a running edge has the clock that was set."""
LONG = pytest.mark.skipif("WARREN_LONG" not in os.environ, reason="takes long: WARREN_LONG=1")
NARROW = "10.10.0.0/24"
BACKUP = "/root/edge.backup"


def edge(deployment: Roaming, *words: str) -> str:
    return deployment.warren(deployment.edge, *words)


def by_name(deployment: Roaming) -> str:
    """The address that stands for payroll.internal, a route of its own."""
    return deployment.laptop.run(["dig", "+short", "payroll.internal"]).stdout.strip()


def hour(deployment: Roaming) -> int:
    """What the edge's own clock says: the last line of its log."""
    lines = deployment.daemons["edge"].output().splitlines()
    return int(re.findall(r"T(\d\d):", lines[-1])[0])


def test_the_edges_clock_is_set_an_hour_forth_and_back(deployment: Roaming, flow: Talk) -> None:
    """While it runs, and over a restart: flows go on, new ones open, and what is deleted ends."""
    before = hour(deployment)
    deployment.set_clock("+1h")
    new_flow_opens(deployment)
    deployment.set_clock("-1h")
    deployment.daemons["edge"].kill()
    deployment.run_edge()
    assert hour(deployment) != before, "the clock was set"
    flow.goes_on()
    deployment.set_clock("+0")
    new_flow_opens(deployment)
    a_narrow_route_ends(deployment, flow)


def new_flow_opens(deployment: Roaming) -> None:
    """With a grant of its own, when the edge has heard of its clock."""
    time.sleep(CLOCK_HEARD)
    payroll = deployment.lab["payroll"]
    with apps.origin(payroll, apps.read_until_error) as port:  # type: ignore[arg-type]
        assert apps.connect(deployment.laptop, payroll.address, port).error == ""


def a_narrow_route_ends(deployment: Roaming, other: Talk) -> None:
    """With its flow, and no other."""
    edge(deployment, "route", "ip", "add", NARROW, "--tunnel", "office")
    wait_until(lambda: NARROW in str(deployment.status()), "the route at the agent", WITHIN)
    with talk(deployment) as narrow:
        edge(deployment, "route", "ip", "delete", NARROW)
        assert narrow.ends() == "ECONNRESET"
    other.goes_on()


@LONG
def test_the_store_is_restored_from_before_a_route_was_added(deployment: Roaming) -> None:
    """Its flow ends, the others go on."""
    edge(deployment, "edge", "backup", BACKUP)
    with talk(deployment, by_name(deployment)) as kept:
        edge(deployment, "route", "ip", "add", NARROW, "--tunnel", "office")
        wait_until(lambda: NARROW in str(deployment.status()), "the route at the agent", WITHIN)
        with talk(deployment) as lost:
            deployment.daemons["edge"].stop()
            edge(deployment, "edge", "restore", BACKUP, "--force")
            deployment.run_edge()
            assert lost.ends() == "ECONNRESET"
        kept.goes_on()
        deployment.opens_soon()


def test_a_lease_ends_flows_that_no_edge_confirms(deployment: Roaming) -> None:
    """At the origin when it is over; at the app when there is a way to tell it. And a connector that has just
    restarted opens what it may, and not what was deleted while it was away."""
    origin_ended: list[float] = []

    def serve(sock: object) -> None:
        apps.read_until_error(sock)  # type: ignore[arg-type]
        origin_ended.append(time.monotonic())

    edge(deployment, "route", "ip", "add", NARROW, "--tunnel", "office")
    deployment.daemons["connector"].kill()
    edge(deployment, "route", "ip", "delete", NARROW)
    edge(deployment, "route", "ip", "delete", "10.10.0.0/16")
    deployment.start_connector(lease=LEASE)
    assert not deployment.opens() and deployment.opens(by_name(deployment))
    edge(deployment, "route", "ip", "add", "10.10.0.0/16", "--tunnel", "office")
    deployment.opens_soon()
    payroll = deployment.lab["payroll"]
    with apps.origin(payroll, serve) as port, apps.connected(deployment.laptop, payroll.address, port) as client:
        client.sendall(b"there")
        deployment.daemons["edge"].kill()
        began = time.monotonic()
        wait_until(lambda: origin_ended, "the end at the origin", WITHIN)
        assert origin_ended[0] - began >= LEASE - 0.5
        deployment.run_edge()
        client.settimeout(WITHIN)
        assert apps.read_until_error(client)[1] == "ECONNRESET"
    deployment.restart_connector()


@LONG
def test_a_rotated_tunnels_former_key_ends_after_24_hours(deployment: Roaming) -> None:
    """A connector that shows it is turned away; with the new token it comes back to its flows."""
    edge(deployment, "tunnel", "rotate", "office", "--token-file", "/root/new.token")
    connector = deployment.daemons["connector"]
    with talk(deployment) as flow:
        for hours, turned_away in ((23, False), (25, True)):
            deployment.set_clock(f"+{hours}h")
            deployment.daemons["edge"].kill()
            deployment.run_edge()
            if turned_away:
                wait_until(lambda: "replaced by a newer one" in connector.output(), "the connector's refusal", WITHIN)
            else:
                flow.goes_on()
        deployment.connector.write("/root/office.token", deployment.edge.read("/root/new.token"), 0o600)
        connector.signal(signal.SIGHUP)
        flow.goes_on()
    deployment.opens_soon()
    deployment.set_clock("+0")
