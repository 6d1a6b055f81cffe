"""Names as the laptop's programs ask for them, and the resolver setting that leads there."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

import pytest

from tests.lab.test_flows import CURL
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import PAGE

RESOLV_CONF = "/etc/resolv.conf"
DIG = ["dig", "+time=5", "+tries=1"]


@pytest.fixture(scope="module", autouse=True)
def route_for_a_name_that_is_not_there(deployment: Deployment) -> None:
    deployment.warren(deployment.edge, "route", "host", "add", "ghost.internal", "--tunnel", "office")
    wait_until(lambda: "ghost.internal" in deployment.status()["dns"]["zones"], "the new zone at the agent")


@pytest.fixture
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


@pytest.fixture
def agent_afterwards(deployment: Deployment) -> Iterator[None]:
    """For tests that stop the agent: it runs again for the next one."""
    yield
    deployment.daemons["agent"].stop()
    deployment.run_agent()


def short(host: Host, *words: str) -> list[str]:
    return host.run([*DIG, "+short", *words]).stdout.split()


def synthetic(host: Host) -> str:
    (address,) = short(host, "payroll.internal")
    return address


def test_an_internal_name_gets_a_synthetic_address(laptop: Host) -> None:
    address = ipaddress.ip_address(synthetic(laptop))
    assert address in ipaddress.ip_network("100.80.0.0/16")
    assert [str(address)] == short(laptop, "payroll.internal")


def test_each_name_has_an_address_of_its_own(laptop: Host) -> None:
    assert synthetic(laptop) not in short(laptop, "db.internal")


def test_a_name_is_written_in_either_case(laptop: Host) -> None:
    assert short(laptop, "PayRoll.INTERNAL") == [synthetic(laptop)]


def test_the_same_over_tcp(laptop: Host) -> None:
    assert short(laptop, "+tcp", "payroll.internal") == [synthetic(laptop)]


def test_a_name_that_the_site_does_not_know_is_nxdomain(laptop: Host) -> None:
    assert "status: NXDOMAIN" in laptop.run([*DIG, "ghost.internal"]).stdout


def test_an_internal_name_without_a_route_is_nobodys(laptop: Host) -> None:
    assert "status: NXDOMAIN" in laptop.run([*DIG, "silent.internal"]).stdout


def test_another_type_has_no_data(laptop: Host) -> None:
    said = laptop.run([*DIG, "payroll.internal", "AAAA"]).stdout
    assert "status: NOERROR" in said and "ANSWER: 0" in said


def test_the_synthetic_address_points_back_to_its_name(laptop: Host) -> None:
    assert short(laptop, "-x", synthetic(laptop)) == ["payroll.internal."]


def test_public_names_are_answered_by_the_resolver_of_before(deployment: Deployment, laptop: Host) -> None:
    assert short(laptop, "www.example.com") == ["203.0.113.1"]
    assert short(laptop, "+tcp", "www.example.com") == ["203.0.113.1"]
    assert deployment.status()["dns"]["before"] == ["192.0.2.53"]


def test_an_address_that_nobody_was_given_is_unreachable(laptop: Host) -> None:
    network = ipaddress.ip_network("100.80.0.0/16")
    taken = {ipaddress.ip_address(synthetic(laptop)), network[1], network[2]}
    free = next(address for address in network.hosts() if address not in taken and int(address) % 256 == 77)
    said = laptop.run([*CURL, "--max-time", "5", f"http://{free}/"], check=False)
    assert said.returncode == 7, said


def test_resolv_conf_is_put_back_after_down(deployment: Deployment, laptop: Host, agent_afterwards: None) -> None:
    assert "192.0.2.53" not in laptop.read(RESOLV_CONF)
    deployment.warren(laptop, "agent", "down")
    assert laptop.read(RESOLV_CONF) == "nameserver 192.0.2.53\n"


@pytest.mark.parametrize("how", ["down", "kill"])
def test_a_mounted_resolv_conf_is_written_in_place_and_put_back(
    deployment: Deployment, laptop: Host, agent_afterwards: None, how: str
) -> None:
    deployment.daemons["agent"].stop()
    laptop.write("/root/resolv.conf", "nameserver 192.0.2.53\noptions edns0\n")
    laptop.run(["mount", "--bind", "/root/resolv.conf", RESOLV_CONF])
    try:
        deployment.run_agent()
        assert laptop.run([*CURL, "http://payroll.internal/"]).stdout == PAGE
        assert "options edns0" in laptop.run(["cat", RESOLV_CONF]).stdout
        if how == "down":
            deployment.warren(laptop, "agent", "down")
        else:
            deployment.daemons["agent"].kill()
        before = "nameserver 192.0.2.53\noptions edns0\n"
        wait_until(lambda: laptop.run(["cat", RESOLV_CONF]).stdout == before, "what was there before")
    finally:
        deployment.daemons["agent"].stop()
        laptop.run(["umount", RESOLV_CONF])


def test_a_resolver_setting_of_somebody_else_is_left_alone(
    deployment: Deployment, laptop: Host, agent_afterwards: None
) -> None:
    theirs = "# another program's\nnameserver 192.0.2.53\n"
    laptop.write(RESOLV_CONF, theirs)
    assert deployment.status()["dns"]["system"] == "changed by another program"
    deployment.warren(laptop, "agent", "down")
    assert laptop.read(RESOLV_CONF) == theirs
    laptop.write(RESOLV_CONF, "nameserver 192.0.2.53\n")


def test_without_dns_the_resolver_stays_as_it_is(deployment: Deployment, laptop: Host, agent_afterwards: None) -> None:
    deployment.daemons["agent"].stop()
    process = deployment.start("agent", laptop, "agent", "up", "--no-dns")
    wait_until(lambda: (deployment.status() or {"routes": {"installed": []}})["routes"]["installed"], "the routes")
    assert process.running
    assert laptop.read(RESOLV_CONF) == "nameserver 192.0.2.53\n"
    assert json.dumps(deployment.status()["dns"]["system"]) == '"not set: --no-dns"'
