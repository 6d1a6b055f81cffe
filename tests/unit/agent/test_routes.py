"""Which included networks lead into the TUN."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from warren.agent.host.netlink import LocalNetwork
from warren.agent.host.routes import Plan, Suspended, plan

networks = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0x0A000000, 0x0A00FFFF),
    st.integers(8, 32),
)


def net(text: str) -> IPv4Network:
    return IPv4Network(text)


def test_no_overlap() -> None:
    local = [LocalNetwork(net("192.168.1.0/24"), "wlan0")]
    assert plan([net("10.10.0.0/16"), net("10.10.0.0/16")], local) == Plan((net("10.10.0.0/16"),))


def test_equal_and_inside_are_suspended_whole() -> None:
    local = [LocalNetwork(net("10.10.0.0/16"), "eth0")]
    for text in ("10.10.0.0/16", "10.10.5.0/24"):
        assert plan([net(text)], local) == Plan(suspended=(Suspended(net(text), net(text), "eth0"),))


def test_a_local_part_is_left_out() -> None:
    local = [LocalNetwork(net("10.1.2.0/24"), "eth0")]
    wanted = plan([net("10.0.0.0/8")], local)
    assert wanted.install == (net("10.0.0.0/8"),)
    assert wanted.leave == (net("10.1.2.0/24"),)
    assert wanted.suspended == (Suspended(net("10.0.0.0/8"), net("10.1.2.0/24"), "eth0"),)


@given(st.lists(networks, max_size=6), st.lists(networks, max_size=4), st.integers(0x0A000000, 0x0A00FFFF))
def test_every_address_goes_where_it_should(included: list[IPv4Network], local: list[IPv4Network], number: int) -> None:
    """By longest prefix over `install` and `leave`: into the TUN exactly if included and not the local network's."""
    wanted = plan(included, [LocalNetwork(network, "eth0") for network in local])
    address = IPv4Address(number)
    routes = [(network.prefixlen, True) for network in wanted.install if address in network]
    routes += [(network.prefixlen, False) for network in wanted.leave if address in network]
    into_tun = bool(routes) and max(routes, key=lambda route: (route[0], not route[1]))[1]
    longest_included = max((n.prefixlen for n in included if address in n), default=-1)
    longest_local = max((n.prefixlen for n in local if address in n), default=-1)
    if into_tun:
        assert longest_included >= 0
    if longest_local >= 0:
        assert not into_tun
    elif longest_included >= 0:
        assert into_tun


def test_what_is_excluded_is_left_alone() -> None:
    wanted = plan([net("10.0.0.0/8"), net("10.9.1.0/24")], [], [net("10.9.0.0/16")])
    assert wanted.install == (net("10.0.0.0/8"),)
    assert wanted.leave == (net("10.9.0.0/16"),)
    assert wanted.excluded == (net("10.9.0.0/16"), net("10.9.1.0/24"))


def test_an_excluded_network_takes_whole_routes_away() -> None:
    wanted = plan([net("10.10.0.0/16"), net("10.20.0.0/16")], [], [net("10.10.0.0/15")])
    assert wanted == Plan((net("10.20.0.0/16"),), excluded=(net("10.10.0.0/16"),))


@given(st.lists(networks, max_size=6), st.lists(networks, max_size=4), st.integers(0x0A000000, 0x0A00FFFF))
def test_excluded_is_stronger_than_included(included: list[IPv4Network], excluded: list[IPv4Network], at: int) -> None:
    wanted, address = plan(included, [], excluded), IPv4Address(at)
    routes = [(network.prefixlen, True) for network in wanted.install if address in network]
    routes += [(network.prefixlen, False) for network in wanted.leave if address in network]
    into_tun = bool(routes) and max(routes, key=lambda route: (route[0], not route[1]))[1]
    assert into_tun == (any(address in n for n in included) and not any(address in n for n in excluded))


def test_the_families_do_not_touch_each_other() -> None:
    site, part, near = IPv6Network("fd00:10::/32"), IPv6Network("fd00:10:5::/48"), IPv6Network("fd00:10:1::/64")
    local = [LocalNetwork(net("10.0.0.0/8"), "eth0"), LocalNetwork(near, "eth0")]
    wanted = plan([site, net("192.168.0.0/16")], local, [part, net("0.0.0.0/0")])
    assert wanted.install == (site,) and set(wanted.leave) == {near, part}
    assert wanted.suspended == (Suspended(site, near, "eth0"),)
    assert wanted.excluded == (net("192.168.0.0/16"), part)
