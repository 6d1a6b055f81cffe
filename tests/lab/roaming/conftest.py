"""One lab for the tests of this folder: a laptop with two cards, an edge with two families and a clock that can be set.

The laptop has Wi-Fi (IPv4 and IPv6, through a router at home) and a cellular card (IPv4 only, through the operator's
NAT, with a smaller MTU); the edge has a name with an address of each family. Hold times are short, so that their ends
are seen, too. Each test leaves it as it found it: everything runs, on the Wi-Fi.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.lab.conftest import faults
from tests.lab.roaming.place import EDGE_NAME, WIFI, WIFI6, Roaming, route
from tests.lab.roaming.talk import Talk, talk
from warren.lab import OFFICE, Lab, Topology
from warren.lab.firewalls import NAT_ROUTER
from warren.lab.services import Services, start_services
from warren.lab.topology import HostSpec, Interface, Network, Route


def more(spec: HostSpec, card: str, address: str, route: Route | None = None) -> HostSpec:
    """With a further address on one card."""
    cards = tuple(replace(one, more=(*one.more, address)) if one.name == card else one for one in spec.interfaces)
    return replace(spec, interfaces=cards, routes=(*spec.routes, *([route] if route else [])))


def topology() -> Topology:
    hosts = {spec.name: spec for spec in OFFICE.hosts}
    laptop = more(hosts["laptop"], "eth0", "2001:db8:77::10/64", Route("::/0", WIFI6[0]))
    cellular = Interface("cell-air", "10.64.0.10/24", "cell0")
    hosts["laptop"] = replace(laptop, interfaces=(*laptop.interfaces, cellular))
    home = more(hosts["home"], "lan0", f"{WIFI6[0]}/64")
    hosts["home"] = more(home, "wan0", "2001:db8:1::2/64", Route("::/0", "2001:db8:1::1"))
    internet = more(hosts["internet"], "home0", "2001:db8:1::1/64", Route("2001:db8:77::/64", "2001:db8:1::2"))
    internet = more(internet, "hosting0", "2001:db8:ed::1/64")
    to_cell = Interface("cell-line", "192.0.2.5/30", "cell0")
    hosts["internet"] = replace(
        internet, interfaces=(*internet.interfaces, to_cell), zone=f"{EDGE_NAME}. 60 IN AAAA 2001:db8:ed::10\n"
    )
    hosts["edge"] = more(hosts["edge"], "eth0", "2001:db8:ed::10/64", Route("::/0", "2001:db8:ed::1"))
    known = {**hosts["nameserver"].names, EDGE_NAME: "203.0.113.10"}
    hosts["nameserver"] = replace(hosts["nameserver"], names=known)
    hosts["payroll"], hosts["db"] = replace(hosts["payroll"], services=("echo",)), replace(hosts["db"], services=())
    hosts["operator"] = HostSpec(
        "operator",
        (Interface("cell-air", "10.64.0.1/24", "lan0"), Interface("cell-line", "192.0.2.6/30", "wan0")),
        (Route("default", "192.0.2.5"),),
        forwards=True,
        firewall=NAT_ROUTER,
    )
    networks = (*OFFICE.networks, Network("cell-air", mtu=1400), Network("cell-line"))
    return replace(OFFICE, name="roaming", hosts=tuple(hosts.values()), networks=networks)


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with Lab(topology()) as lab:
        yield lab


@pytest.fixture(scope="package")
def services(lab: Lab) -> Services:
    return start_services(lab)


@pytest.fixture(scope="package")
def deployment(lab: Lab, services: Services) -> Roaming:
    deployment = Roaming(lab)
    deployment.up()
    return deployment


@pytest.fixture(scope="module", autouse=True)
def no_fault_in_any_log(deployment: Roaming) -> Iterator[None]:
    yield
    assert faults(deployment.lab) == {}


@pytest.fixture(autouse=True)
def at_home(deployment: Roaming) -> Iterator[None]:
    """At the end everything is as it was: on the Wi-Fi, with both families."""
    yield
    links, laptop = deployment.lab.links, deployment.laptop
    for line in ("home-lan", "home-line"):
        links.mend(line)
        links.clear(line)
    route(laptop, "default", WIFI)
    route(laptop, "::/0", WIFI6)
    deployment.opens_soon()


@pytest.fixture
def flow(deployment: Roaming, at_home: None) -> Iterator[Talk]:
    with talk(deployment) as flow:
        yield flow
