"""A lab with two devices, a list, and the edge as their resolver.

tablet ── 192.0.2.6 ── internet (and all of the office topology)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.lab.conftest import faults
from warren.lab import OFFICE, Lab, Topology, wait_until
from warren.lab.deployment import UP_WITHIN, Deployment
from warren.lab.host import Host
from warren.lab.services import Services, start_services
from warren.lab.topology import HostSpec, Interface, Network, Route

EVERYTHING = ("--dns-scope", "everything")
EDGE_YAML = """
metrics: 127.0.0.1:9311
dns:
  lists: [{name: ads, source: /etc/warren/ads.hosts, categories: [ads]}]
  search: [corp.example]
  limit: {per_second: 100, burst: 200}
"""
ADS = "0.0.0.0 ads.example.com\n0.0.0.0 tracker.example.com\n"
PUBLIC = {
    "edge.example.net": "203.0.113.10",
    "www.example.com": "203.0.113.1",
    "ads.example.com": "203.0.113.1",
    "play.games.example": "203.0.113.1",
    "www.fritz.example": "203.0.113.1",
}
ZONE = """
intranet.corp.example.  60 IN A     10.10.0.10
alias.corp.example.     60 IN CNAME intranet.corp.example.
long.corp.example.      60 IN TXT   "{0}"
long.corp.example.      60 IN TXT   "1{0}"
long.corp.example.      60 IN TXT   "2{0}"
long.corp.example.      60 IN TXT   "3{0}"
long.corp.example.      60 IN TXT   "4{0}"
long.corp.example.      60 IN TXT   "5{0}"
long.corp.example.      60 IN TXT   "6{0}"
20.0.10.10.in-addr.arpa. 60 IN PTR  db.corp.example.
"""


@pytest.fixture(scope="package")
def topology() -> Topology:
    internet, nameserver = OFFICE.host("internet"), OFFICE.host("nameserver")
    line = Interface("tablet-line", "192.0.2.5/30", "tablet0")
    tablet = HostSpec(
        "tablet",
        (Interface("tablet-line", "192.0.2.6/30"),),
        (Route("default", "192.0.2.5"),),
        nameserver="192.0.2.53",
    )
    changed = {
        "internet": replace(internet, interfaces=(*internet.interfaces, line), names=PUBLIC),
        "nameserver": replace(nameserver, zone=nameserver.zone + ZONE.format("x" * 200)),
    }
    hosts = (*(changed.get(host.name, host) for host in OFFICE.hosts), tablet)
    return replace(OFFICE, hosts=hosts, networks=(*OFFICE.networks, Network("tablet-line")))


@pytest.fixture(scope="package")
def lab(topology: Topology) -> Iterator[Lab]:
    with Lab(topology) as lab:
        yield lab


@pytest.fixture(scope="package")
def services(lab: Lab) -> Services:
    return start_services(lab)


@dataclass
class Two:
    """The deployment, and its second device."""

    deployment: Deployment

    @property
    def edge(self) -> Host:
        return self.deployment.edge

    @property
    def laptop(self) -> Host:
        return self.deployment.laptop

    @property
    def tablet(self) -> Host:
        return self.deployment.lab["tablet"]

    def warren(self, *words: str, check: bool = True) -> str:
        """One command at the edge."""
        return self.deployment.warren(self.edge, *words, check=check)

    def agent(self, host: Host, *words: str) -> None:
        """A device's agent, until it answers names."""
        role = "agent" if host is self.laptop else "agent-2"
        self.deployment.start(role, host, "agent", "up", *words)

        def ready() -> bool:
            said = host.run(["warren", "agent", "status"], check=False).stdout
            return "connected" in said and "set yet" not in said

        wait_until(ready, f"the agent on {host.name}", UP_WITHIN)

    def again(self, host: Host, *words: str) -> None:
        """The same with other options."""
        self.deployment.daemons["agent" if host is self.laptop else "agent-2"].stop()
        self.agent(host, *words)

    def restart_edge(self) -> None:
        self.deployment.daemons["edge"].kill()
        self.deployment.run_edge()


@pytest.fixture(scope="package")
def two(lab: Lab, services: Services) -> Two:
    two = Two(Deployment(lab))
    deployment = two.deployment
    two.edge.write("/etc/warren/edge.yaml", EDGE_YAML)
    two.edge.write("/etc/warren/ads.hosts", ADS)
    deployment.edge_up()
    deployment.tunnel_up()
    for host, name in ((two.laptop, "laptop"), (two.tablet, "tablet")):
        deployment.enrol(host, name)
        two.agent(host, *EVERYTHING)
    wait_until(lambda: "lists loaded" in deployment.daemons["edge"].output(), "the lists", UP_WITHIN)
    return two


@pytest.fixture(scope="module", autouse=True)
def no_fault_in_any_log(two: Two) -> Iterator[None]:
    """An error in a daemon's log fails the module."""
    yield
    assert faults(two.deployment.lab) == {}


def dig(host: Host, *words: str, check: bool = True) -> str:
    """What dig says, extended errors and all."""
    return host.run(["dig", "+time=5", "+tries=1", *words], check=check).stdout


def short(host: Host, *words: str) -> list[str]:
    """The answers; none where nobody answered at all."""
    asked = host.run(["dig", "+time=5", "+tries=1", "+short", *words], check=False)
    return asked.stdout.split() if asked.returncode == 0 else []


def took(host: Host, name: str) -> float:
    """Seconds until a name is answered."""
    began = time.monotonic()
    assert short(host, name)
    return time.monotonic() - began


def metrics(edge: Host) -> str:
    return edge.run(["curl", "-s", "http://127.0.0.1:9311/metrics"]).stdout


def counted(page: str, sample: str) -> float:
    """The value of one sample; 0 if it is not there yet."""
    return next((float(line.split()[1]) for line in page.splitlines() if line.startswith(sample)), 0.0)
