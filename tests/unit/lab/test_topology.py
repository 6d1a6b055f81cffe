from __future__ import annotations

from dataclasses import replace

import pytest

from warren.lab.topologies import OFFICE
from warren.lab.topology import HostSpec, Interface, Network, Route, Topology

PAIR = (Network("line"),)


def _host(name: str, network: str = "line", address: str = "192.0.2.1/30") -> HostSpec:
    return HostSpec(name, (Interface(network, address),))


def test_variations_leave_the_original_alone() -> None:
    varied = OFFICE.with_host("laptop", congestion="cubic").with_network("home-lan", gso_max_segs=10)
    assert varied.host("laptop").congestion == "cubic"
    assert {network.gso_max_segs for network in varied.networks} == {10, None}
    assert OFFICE.host("laptop").congestion is None


def test_variation_of_an_unknown_host_or_network_is_an_error() -> None:
    with pytest.raises(KeyError):
        OFFICE.with_host("laptob", congestion="cubic")
    with pytest.raises(KeyError):
        OFFICE.with_network("home", mtu=1400)


@pytest.mark.parametrize(
    ("hosts", "networks", "says"),
    [
        ((_host("a"), _host("a")), PAIR, "two hosts of one name"),
        ((_host("a"),), PAIR, "joins 1 hosts"),
        ((_host("a"), _host("b", "lime")), PAIR, "unknown network 'lime'"),
        ((_host("a"), _host("B")), PAIR, "lower-case"),
        ((_host("a"), _host("b"), _host("c")), PAIR, "joins 3 hosts"),
        ((_host("a"), _host("b")), (Network("line", switch="c"),), "is not plugged into it"),
        ((_host("a"), _host("b", address="192.0.2.300/30")), PAIR, "192.0.2.300"),
        ((_host("a"), replace(_host("b"), routes=(Route("default"),))), PAIR, "next hop or a kind"),
    ],
)
def test_what_does_not_fit_is_refused(hosts: tuple[HostSpec, ...], networks: tuple[Network, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Topology("tried", hosts, networks)


def test_sysctls_of_a_host_come_last() -> None:
    host = HostSpec("a", forwards=True, sysctls={"net.ipv4.ping_group_range": "1 0"})
    assert host.all_sysctls()["net.ipv4.ping_group_range"] == "1 0"
    assert host.all_sysctls()["net.ipv4.ip_forward"] == "1"
