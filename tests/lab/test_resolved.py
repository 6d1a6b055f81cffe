"""systemd-resolved on the laptop: the agent's link gets its domains, and gives them back however the agent ends.

resolved itself is played by `resolved_peer`, on a bus of the laptop's own.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import faults
from tests.lab.thread.test_flows import CURL
from warren.lab import Lab, wait_until
from warren.lab.deployment import Deployment
from warren.lab.services import PAGE, Services

pytestmark = pytest.mark.skipif(
    not (shutil.which("dbus-daemon") and shutil.which("busctl") and importlib.util.find_spec("dbus_fast")),
    reason="needs dbus-daemon, busctl and dbus-fast",
)

UPLINK, STUB = "192.0.2.53", "127.0.0.53"
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""
RESOLV_CONF = f"nameserver {STUB}\noptions edns0 trust-ad\nsearch home.example\n"
CALLS = "/root/resolved.calls"


@pytest.fixture(scope="module")
def deployment(lab: Lab, services: Services) -> Iterator[Deployment]:
    deployment = Deployment(lab)
    laptop = deployment.laptop
    laptop.run(["mkdir", "-p", "/run/dbus"])
    laptop.write("/root/bus.conf", BUS)
    laptop.write("/etc/resolv.conf", RESOLV_CONF)
    bus = laptop.start(["dbus-daemon", "--config-file=/root/bus.conf", "--nofork", "--print-address=1"])
    bus.wait_for_output("^unix:path")
    peer = laptop.start([sys.executable, Path(__file__).with_name("resolved_peer.py"), UPLINK, CALLS], log="resolved")
    peer.wait_for_output("^resolving")
    deployment.up()
    deployment.warren(deployment.edge, "route", "host", "add", "payroll.acme.local", "--tunnel", "office")
    wait_until(lambda: "payroll.acme.local" in deployment.status()["dns"]["zones"], "the agent has heard")
    yield deployment
    assert faults(lab) == {}


def calls(deployment: Deployment) -> list[list[Any]]:
    return [json.loads(line) for line in deployment.laptop.read(CALLS).splitlines()]


def last(deployment: Deployment, member: str) -> Any:
    return [words for name, *words in calls(deployment) if name == member][-1]


def short(deployment: Deployment, *words: str) -> str:
    return deployment.laptop.run(["dig", "+short", "+time=3", "+tries=2", *words], check=False).stdout.strip()


def test_the_links_domains_lead_to_the_agent_and_the_file_stays(deployment: Deployment) -> None:
    said = deployment.status()["dns"]
    assert said["system"] == "set by systemd-resolved"
    assert said["before"] == [UPLINK]
    assert last(deployment, "SetLinkDNS") == [[said["resolver"]]]
    assert set(last(deployment, "SetLinkDomains")[0]) == {
        *("payroll.internal", "db.internal", "payroll.acme.local"),
        *("10.10.in-addr.arpa", "80.100.in-addr.arpa"),
    }
    assert last(deployment, "SetLinkDefaultRoute") == [False]
    for member in ("SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSOverTLS", "SetLinkDNSSEC"):
        assert last(deployment, member) == ["no"]
    assert deployment.laptop.read("/etc/resolv.conf") == RESOLV_CONF


def test_names_behind_the_tunnel_and_beside_it(deployment: Deployment) -> None:
    assert deployment.laptop.run([*CURL, "http://payroll.internal/"]).stdout == PAGE
    assert short(deployment, "www.example.com") == "203.0.113.1"
    assert short(deployment, "-x", short(deployment, "payroll.internal")) == "payroll.internal."
    assert short(deployment, "-x", "10.10.0.10") == "payroll.internal."


def test_a_name_below_an_exact_one_goes_to_the_uplink_and_not_round_in_circles(deployment: Deployment) -> None:
    done = deployment.laptop.run(["dig", "+time=3", "+tries=1", "deeper.payroll.internal"])
    assert "status: NXDOMAIN" in done.stdout


def test_a_name_under_local_works_beside_multicast_dns(deployment: Deployment) -> None:
    assert deployment.laptop.run([*CURL, "http://payroll.acme.local/"]).stdout == PAGE
    assert "status: NXDOMAIN" in deployment.laptop.run(["dig", "printer.local"]).stdout


def test_a_route_that_is_added_and_deleted_is_followed(deployment: Deployment) -> None:
    deployment.warren(deployment.edge, "route", "host", "add", "*.corp.internal", "--tunnel", "office")
    wait_until(lambda: "corp.internal" in last(deployment, "SetLinkDomains")[0], "the new domain")
    wait_until(lambda: short(deployment, "web.corp.internal").startswith("100.80."), "the new name")
    deployment.warren(deployment.edge, "route", "host", "delete", "*.corp.internal")
    wait_until(lambda: "corp.internal" not in last(deployment, "SetLinkDomains")[0], "the domain is gone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_link_is_given_back_however_the_agent_ends(deployment: Deployment, number: signal.Signals) -> None:
    before = len(calls(deployment))
    deployment.daemons["agent"].signal(number)
    deployment.daemons["agent"].wait()
    wait_until(lambda: "RevertLink" in [name for name, *_ in calls(deployment)[before:]], "RevertLink")
    wait_until(lambda: not deployment.laptop.path("/var/lib/warren/agent/host.journal").exists(), "an empty journal")
    assert short(deployment, "www.example.com") == "203.0.113.1"
    assert deployment.laptop.read("/etc/resolv.conf") == RESOLV_CONF
    deployment.run_agent()
    assert deployment.laptop.run([*CURL, "http://payroll.internal/"]).stdout == PAGE
