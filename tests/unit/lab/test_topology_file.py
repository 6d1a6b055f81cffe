"""Topologies out of YAML files: the ones that come with the lab, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.lab.firewalls import NAT_ROUTER
from warren.lab.state import LabError
from warren.lab.topologies import FOLDER, NAMES, OFFICE, TWO_SITES
from warren.lab.topology import Interface, Network, Route, Topology
from warren.lab.topology_file import load, parse

GOOD = """
name: pair
networks: {line: }
hosts:
  a:
    cards: [{network: line, address: 192.0.2.1/30}]
    routes: {default: 192.0.2.2, 10.0.0.0/8: unreachable}
  b:
    cards: [{network: line, address: 192.0.2.2/30, name: lan0}]
    firewall: nat-router
"""


def test_a_file_becomes_a_topology() -> None:
    pair = parse(GOOD, "pair.yaml")
    assert pair.name == "pair" and pair.networks == (Network("line"),)
    assert pair.host("a").routes == (Route("default", via="192.0.2.2"), Route("10.0.0.0/8", kind="unreachable"))
    assert pair.host("b").interfaces == (Interface("line", "192.0.2.2/30", "lan0"),)
    assert pair.host("b").firewall == NAT_ROUTER


@pytest.mark.parametrize("name", NAMES)
def test_those_that_come_with_the_lab_are_called_like_their_files(name: str) -> None:
    assert load(FOLDER / f"{name}.yaml").name == name


def test_two_sites_use_the_same_addresses() -> None:
    assert TWO_SITES.host("payroll").address == TWO_SITES.host("branch-payroll").address
    assert {host.name for host in OFFICE.hosts} < {host.name for host in TWO_SITES.hosts}
    assert all(TWO_SITES.host(host.name) == host for host in OFFICE.hosts if host.name != "internet")


@pytest.mark.parametrize("topology", [OFFICE, TWO_SITES])
def test_a_topology_survives_being_written_down(topology: Topology) -> None:
    assert msgspec.json.decode(msgspec.json.encode(topology), type=Topology) == topology


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("name: pair", "name: [", "x.yaml: line "),
        ("name: pair", "naem: pair", "x.yaml: Object contains unknown field `naem`"),
        ("name: pair", "", "x.yaml: Object missing required field `name`"),
        ("name: lan0}", "nam: lan0}", "x.yaml: hosts.b.cards[0]: Object contains unknown field `nam`"),
        ("{line: }", "{line: {mtu: 20}}", "x.yaml: networks.line.mtu: Expected `int` >= 576"),
        (
            "nat-router",
            "nat",
            "x.yaml: hosts.b.firewall: 'nat' is neither a ruleset nor one of workstation, nat-router",
        ),
        ("network: line, address: 192.0.2.2", "network: lime, address: 192.0.2.2", "host b: unknown network 'lime'"),
        ("192.0.2.1/30", "192.0.2.300/30", "x.yaml: host a: eth0: '192.0.2.300/30' is not an address"),
        ("unreachable", "unreachabel", "x.yaml: host a: route to 10.0.0.0/8: 'unreachabel' is not an address"),
        ("  b:", "  a:", 'found duplicate key "a"'),
        ("    firewall: nat-router", "    services: [htpp]", "x.yaml: hosts.b.services[0]: Invalid enum value 'htpp'"),
        ("name: pair", "!!python/object:os.system {}", "x.yaml: "),
    ],
)
def test_what_is_wrong_is_told_in_one_line_with_its_place(before: str, after: str, says: str) -> None:
    assert before in GOOD
    with pytest.raises(LabError) as told:
        parse(GOOD.replace(before, after), "x.yaml")
    assert says in str(told.value) and "\n" not in str(told.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(LabError, match="cannot be read: No such file"):
        load(Path("/nowhere/x.yaml"))


@given(st.text(max_size=200))
def test_any_text_is_a_topology_or_an_error(text: str) -> None:
    with pytest.raises(LabError):
        parse(text, "x.yaml")
