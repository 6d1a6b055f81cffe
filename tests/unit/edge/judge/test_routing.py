"""Routing against an interpreter that tries every route."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from warren.edge.judge.routing import Address, AddressTable, HostTable, Network

BITS = {4: 32, 6: 128}


def network(version: int, value: int, length: int) -> Network:
    shift = BITS[version] - length
    kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    return kind((value >> shift << shift, length))


def networks(version: int) -> st.SearchStrategy[Network]:
    """Few distinct high bits, so that they nest."""
    bits = BITS[version]
    values = st.builds(
        lambda high, low: high << (bits - 4) | low, st.integers(0, 3), st.integers(0, (1 << bits - 4) - 1)
    )
    return st.builds(network, st.just(version), values, st.integers(0, bits))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[tuple[Network, int]], Address]:
    entries = draw(st.lists(st.one_of(networks(4), networks(6)), max_size=30, unique=True))
    version = draw(st.sampled_from([4, 6]))
    inside = [entry for entry in entries if entry.version == version]
    value = draw(st.integers(0, (1 << BITS[version]) - 1))
    if inside and draw(st.booleans()):
        chosen = draw(st.sampled_from(inside))
        value = int(chosen.network_address) | value & int(chosen.hostmask)
    address = ipaddress.IPv4Address(value) if version == 4 else ipaddress.IPv6Address(value)
    return [(entry, index) for index, entry in enumerate(entries)], address


@given(tables())
def test_longest_prefix_is_what_trying_every_route_finds(case: tuple[list[tuple[Network, int]], Address]) -> None:
    entries, address = case
    containing = [entry for entry in entries if entry[0].version == address.version and address in entry[0]]
    expected = max(containing, key=lambda entry: entry[0].prefixlen)[1] if containing else None
    assert AddressTable(entries).find(address) == expected


def test_versions_do_not_meet() -> None:
    table = AddressTable([(ipaddress.ip_network("0.0.0.0/0"), "four"), (ipaddress.ip_network("::/96"), "six")])
    assert table.find(ipaddress.ip_address("10.0.0.1")) == "four"
    assert table.find(ipaddress.ip_address("::a00:1")) == "six"
    assert table.find(ipaddress.ip_address("::ffff:10.0.0.1")) is None


labels = st.sampled_from(["a", "b", "corp", "internal"])
names = st.lists(labels, min_size=1, max_size=5).map(".".join)


@given(st.lists(st.one_of(names, names.map("*.".__add__)), max_size=20, unique=True), names)
def test_names_are_what_trying_every_route_finds(routes: list[str], name: str) -> None:
    wild = [route for route in routes if route.startswith("*.") and name.endswith(route[1:])]
    expected = name if name in routes else max(wild, key=len, default=None)
    assert HostTable((route, route) for route in routes).find(name) == expected


def test_a_wildcard_is_one_or_more_labels_and_not_its_own_apex() -> None:
    table = HostTable([("*.corp.internal", "wild"), ("db.corp.internal", "exact"), ("*.eu.corp.internal", "longer")])
    found = {name: table.find(name) for name in ("corp.internal", "x.corp.internal", "y.x.corp.internal")}
    assert found == {"corp.internal": None, "x.corp.internal": "wild", "y.x.corp.internal": "wild"}
    assert table.find("db.corp.internal") == "exact"
    assert table.find("a.db.corp.internal") == "wild"
    assert table.find("a.b.eu.corp.internal") == "longer"
    assert table.find("xcorp.internal") is None
