"""What the administrator changes while everything runs: routes and devices."""

from __future__ import annotations

import time

import pytest

from tests.lab import apps
from tests.lab.thread.test_flows import CURL
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import PAGE

SOON = 2.0
UNREACHABLE = ("EHOSTUNREACH", "ENETUNREACH")


@pytest.fixture
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


def edge(deployment: Deployment, *words: str) -> None:
    deployment.warren(deployment.edge, *words)


def last_reason(deployment: Deployment) -> str:
    return str(deployment.status()["refused"][-1]["reason"])


def test_a_route_that_is_added_works_within_two_seconds(deployment: Deployment, laptop: Host) -> None:
    deployment.lab["payroll"].run(["ip", "addr", "add", "10.11.0.5/32", "dev", "eth0"])
    deployment.connector.run(["ip", "route", "add", "10.11.0.0/24", "via", "10.10.0.10"])
    assert apps.connect(laptop, "10.11.0.5", 80).error in UNREACHABLE
    edge(deployment, "route", "ip", "add", "10.11.0.0/24", "--tunnel", "office")
    began = time.monotonic()
    wait_until(lambda: apps.connect(laptop, "10.11.0.5", 80).error == "", "the new route")
    assert time.monotonic() - began < SOON


def test_a_host_route_that_is_added_works_within_two_seconds(deployment: Deployment, laptop: Host) -> None:
    deployment.connector.write("/etc/hosts", "127.0.0.1 localhost\n10.10.0.10 intranet.internal\n")
    assert laptop.run([*CURL, "http://intranet.internal/"], check=False).returncode == 6
    edge(deployment, "route", "host", "add", "intranet.internal", "--tunnel", "office")
    began = time.monotonic()
    wait_until(lambda: laptop.run([*CURL, "http://intranet.internal/"], check=False).stdout == PAGE, "the new route")
    assert time.monotonic() - began < SOON


def test_the_next_opening_on_a_deleted_route_is_refused(deployment: Deployment, laptop: Host) -> None:
    edge(deployment, "route", "ip", "add", "10.10.0.20/32", "--tunnel", "office")
    assert apps.connect(laptop, "10.10.0.20", 5432).error == ""
    edge(deployment, "route", "ip", "delete", "10.10.0.0/16")
    try:
        refused = wait_until(lambda: apps.connect(laptop, "10.10.0.10", 80).error, "the end of the route", SOON)
        assert refused in UNREACHABLE
        assert apps.connect(laptop, "10.10.0.20", 5432).error == ""
    finally:
        edge(deployment, "route", "ip", "add", "10.10.0.0/16", "--tunnel", "office")
    wait_until(lambda: apps.connect(laptop, "10.10.0.10", 80).error == "", "the route again", SOON)


def test_the_next_opening_by_a_deleted_name_is_refused(deployment: Deployment, laptop: Host) -> None:
    (address,) = laptop.run(["dig", "+short", "db.internal"]).stdout.split()
    assert apps.connect(laptop, address, 5432).error == ""
    edge(deployment, "route", "host", "delete", "db.internal")
    try:
        refused = wait_until(lambda: apps.connect(laptop, address, 5432), "the end of the route", SOON)
        assert refused.error == "EHOSTUNREACH" and refused.seconds < 1
        assert last_reason(deployment) == "no_route"
        assert laptop.run([*CURL, "http://db.internal/"], check=False).returncode == 6
    finally:
        edge(deployment, "route", "host", "add", "db.internal", "--tunnel", "office")


def test_the_next_opening_of_a_deleted_device_is_refused(deployment: Deployment, laptop: Host) -> None:
    with apps.connected(laptop, "10.10.0.10", 80):
        edge(deployment, "device", "delete", "laptop")
        refused = apps.connect(laptop, "10.10.0.10", 80)
        assert refused.error == "EHOSTUNREACH" and refused.seconds < 3, refused
        said = wait_until(lambda: deployment.status()["edges"][0], "what the agent knows")
        assert said["state"] != "connected"
        assert "not enrolled" in said["reason"] or "device_unknown" in said["reason"], said
        assert last_reason(deployment) in ("device_unknown", "judge_away")


def test_a_device_that_was_deleted_comes_in_again_with_a_new_key(deployment: Deployment, laptop: Host) -> None:
    deployment.warren(laptop, "agent", "down")
    deployment.daemons["agent"].wait()
    edge(deployment, "device", "add", "laptop", "--key-file", "/root/again.key")
    deployment.carry("/root/again.key", deployment.edge, laptop)
    refused = laptop.run(["warren", "agent", "enrol", "--key-file", "/root/again.key"], check=False)
    assert refused.returncode != 0 and "--force" in refused.stderr
    deployment.warren(laptop, "agent", "enrol", "--key-file", "/root/again.key", "--force")
    deployment.run_agent()
    assert laptop.run([*CURL, "http://payroll.internal/"]).stdout == PAGE
