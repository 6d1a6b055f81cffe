"""The whole thread over IPv6 only: as the network underneath and as traffic, with real programs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.conftest import faults
from warren.lab import Lab, Topology
from warren.lab.deployment import UP_WITHIN, Deployment
from warren.lab.host import Host
from warren.lab.services import PAGE, start_services
from warren.lab.topologies import IPV6
from warren.lab.waiting import wait_until

CONNECT = """
import errno, json, socket, sys
found = {}
for host in sys.argv[1:]:
    address, _, port = host.rpartition(" ")
    with socket.socket(socket.AF_INET6) as sock:
        sock.settimeout(6)
        try:
            sock.connect((address, int(port)))
            found[host] = ""
        except TimeoutError:
            found[host] = "timeout"
        except OSError as error:
            found[host] = errno.errorcode[error.errno]
print(json.dumps(found))
"""
UDP = """
import errno, json, socket, sys
found = {}
for size in map(int, sys.argv[1:]):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect(("fd00:10::10", 7))
        sent = bytes(index % 251 for index in range(size))
        sock.send(sent)
        found[str(size)] = sock.recv(65535) == sent
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
    sock.settimeout(10)
    sock.connect(("fd00:10::10", 9))
    sock.send(b"anybody?")
    try:
        sock.recv(100)
    except OSError as error:
        found["closed"] = errno.errorcode.get(error.errno, str(error))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def topology() -> Topology:
    return IPV6


@pytest.fixture(scope="module")
def deployment(lab: Lab) -> Iterator[Deployment]:
    start_services(lab)
    deployment = Deployment(lab)
    deployment.warren(deployment.edge, "edge", "init", "--public", "[2001:db8:ed::10]")
    deployment.start("edge", deployment.edge, "edge", "run").wait_for_output("edge runs", UP_WITHIN)
    deployment.warren(deployment.edge, "tunnel", "create", "office", "--token-file", "/root/office.token")
    deployment.warren(deployment.edge, "route", "ip", "add", "fd00:10::/32", "--tunnel", "office")
    deployment.warren(deployment.edge, "route", "host", "add", "payroll.internal", "--tunnel", "office")
    deployment.connector_up()
    deployment.agent_up()
    yield deployment
    assert faults(lab) == {}


@pytest.fixture(scope="module")
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


def test_http_by_address_and_by_name(laptop: Host) -> None:
    for url in ("http://[fd00:10::10]/", "http://payroll.internal/"):
        assert laptop.run(["curl", "-sS", "-m", "10", url]).stdout == PAGE


def test_connect_fails_as_it_would_beside_the_origin(deployment: Deployment, laptop: Host) -> None:
    hosts = ["fd00:10::10 80", "fd00:10::10 81", "fd00:10:66::1 80", "fd00:10:77::1 80", "fd00:10::66 80"]
    here = json.loads(laptop.python(CONNECT, *hosts).stdout)
    assert here == json.loads(deployment.connector.python(CONNECT, *hosts).stdout)
    assert list(here.values()) == ["", "ECONNREFUSED", "ENETUNREACH", "EACCES", "timeout"]


def test_datagrams_of_every_size_and_a_closed_port(laptop: Host) -> None:
    said = json.loads(laptop.python(UDP, "1", "1200", "1452", "9000", "60000").stdout)
    assert said.pop("closed") == "ECONNREFUSED"
    assert said == dict.fromkeys(["1", "1200", "1452", "9000", "60000"], True)


def test_ping_and_traceroute(laptop: Host) -> None:
    assert "3 received" in laptop.run(["ping", "-6", "-c", "3", "-i", "0.2", "-W", "5", "fd00:10::10"]).stdout
    done = laptop.run(["ping", "-6", "-c", "1", "-W", "5", "fd00:10:66::1"], check=False)
    assert done.returncode == 1 and "fd00:10::1 icmp_seq=1 Destination unreachable" in done.stdout
    said = laptop.run(["traceroute", "-6", "-I", "-n", "-w", "3", "-q", "1", "fd00:10::10"]).stdout.splitlines()[1:]
    assert len(said) == 2 and said[1].split()[1] == "fd00:10::10"


def test_a_name_has_a_synthetic_address_of_each_family(laptop: Host) -> None:
    short, long = (laptop.run(["dig", "+short", "payroll.internal", kind]).stdout.strip() for kind in ("A", "AAAA"))
    assert short.startswith("100.80.") and long.startswith("fd77:6172:7265:6e00:")
    assert laptop.run(["dig", "+short", "-x", long]).stdout.strip() == "payroll.internal."
    assert laptop.run(["curl", "-6", "-sS", "-m", "10", "http://payroll.internal/"]).stdout == PAGE
    assert "1 received" in laptop.run(["ping", "-6", "-c", "1", "-W", "5", "payroll.internal"]).stdout


def test_a_name_of_an_address(laptop: Host) -> None:
    assert laptop.run(["dig", "+short", "-x", "fd00:10::10"]).stdout.strip() == "payroll.internal."


def test_bytes_both_ways(laptop: Host) -> None:
    for more in ([], ["-R"]):
        said = json.loads(laptop.run(["iperf3", "-6", "-c", "fd00:10::10", "-t", "2", "-J", *more], timeout=60).stdout)
        assert said["end"]["sum_received"]["bytes"] > 1 << 20


def test_nothing_is_left_after_a_kill(deployment: Deployment, laptop: Host) -> None:
    assert "5150" in laptop.run(["ip", "-6", "rule"]).stdout
    laptop.run(["pkill", "-KILL", "-f", "^/.*warren agent up"], check=False)
    wait_until(lambda: "5150" not in laptop.run(["ip", "-6", "rule"]).stdout, "the guardian's work", 15)
    assert "5150" not in laptop.run(["ip", "rule"]).stdout
    assert "warren0" not in laptop.run(["ip", "-6", "route", "show", "table", "all"]).stdout
    assert "2001:db8::53" in laptop.read("/etc/resolv.conf")


def test_a_host_without_ipv6_is_told_so(deployment: Deployment, laptop: Host) -> None:
    """The interface comes up without IPv6, as where a distribution has it switched off for new interfaces."""
    laptop.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])
    deployment.start("agent", laptop, "agent", "up")
    wait_until(lambda: deployment.status().get("routes", {}).get("lacking") == ["fd00:10::/32"], "the status", 20)
    assert "IPv6 is switched off" in laptop.run(["warren", "agent", "status"]).stdout
    assert laptop.run(["curl", "-sS", "-m", "10", "http://payroll.internal/"]).stdout == PAGE  # by a synthetic address
