"""Names under a wildcard, of every type: what passes through from the site's resolver, and what never does."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

import pytest

from tests.lab.thread.test_flows import CURL
from tests.lab.thread.test_names import DIG, RESOLV_CONF, short
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import PAGE

WILDCARD = "*.corp.internal"
LOCAL = "payroll.acme.local"
SYNTHETIC = ipaddress.ip_network("100.80.0.0/16")


@pytest.fixture(scope="module")
def laptop(deployment: Deployment) -> Iterator[Host]:
    """With the wildcard and the name under .local routed."""
    for name in (WILDCARD, LOCAL):
        deployment.warren(deployment.edge, "route", "host", "add", name, "--tunnel", "office")
    wait_until(lambda: {WILDCARD, LOCAL} <= {*deployment.status()["dns"]["zones"]}, "the new zones at the agent")
    yield deployment.laptop
    for name in (WILDCARD, LOCAL):
        deployment.warren(deployment.edge, "route", "host", "delete", name)
    wait_until(lambda: not {WILDCARD, LOCAL} & {*deployment.status()["dns"]["zones"]}, "no such zones at the agent")


def said(host: Host, *words: str) -> str:
    return host.run([*DIG, *words]).stdout


@pytest.mark.parametrize("name", ["web.corp.internal", "web.eu.corp.internal", "alias.corp.internal", LOCAL])
def test_a_name_under_a_wildcard_is_reached(laptop: Host, name: str) -> None:
    (address,) = short(laptop, name)
    assert ipaddress.ip_address(address) in SYNTHETIC
    assert laptop.run([*CURL, f"http://{name}/"]).stdout == PAGE
    assert short(laptop, "-x", address) == [f"{name}."]


def test_each_name_under_a_wildcard_has_an_address_of_its_own(laptop: Host) -> None:
    assert short(laptop, "web.corp.internal") != short(laptop, "web.eu.corp.internal")


def test_nxdomain_under_a_wildcard_stays_nxdomain(laptop: Host) -> None:
    for kind in ("A", "AAAA", "TXT"):
        assert "status: NXDOMAIN" in said(laptop, "ghost.corp.internal", kind)


def test_a_search_list_beside_the_connector_makes_no_other_name_of_it(deployment: Deployment, laptop: Host) -> None:
    before = deployment.connector.read(RESOLV_CONF)
    deployment.connector.write(RESOLV_CONF, f"{before}search lan\n")
    try:
        assert "10.10.0.10" in deployment.connector.run(["getent", "ahostsv4", "ghost.corp.internal"]).stdout
        assert "status: NXDOMAIN" in said(laptop, "ghost.corp.internal")
        assert short(laptop, "web.corp.internal") != []
    finally:
        deployment.connector.write(RESOLV_CONF, before)


def test_the_connectors_hosts_file_counts(deployment: Deployment, laptop: Host) -> None:
    before = deployment.connector.read("/etc/hosts")
    deployment.connector.write("/etc/hosts", f"{before}\n10.10.0.10 filed.corp.internal\n")
    try:
        assert laptop.run([*CURL, "http://filed.corp.internal/"]).stdout == PAGE
    finally:
        deployment.connector.write("/etc/hosts", before)


def test_a_name_without_an_address_has_no_data(laptop: Host) -> None:
    for kind in ("A", "AAAA"):
        answer = said(laptop, "text.corp.internal", kind)
        assert "status: NOERROR" in answer and "ANSWER: 0" in answer


def test_the_apex_of_a_wildcard_is_not_under_it(laptop: Host) -> None:
    assert "status: NXDOMAIN" in said(laptop, "corp.internal", "TXT")


def test_aaaa_has_no_data_where_there_is_an_ipv4_address(laptop: Host) -> None:
    answer = said(laptop, "web.corp.internal", "AAAA")
    assert "status: NOERROR" in answer and "ANSWER: 0" in answer


def test_text_passes_through(laptop: Host) -> None:
    assert short(laptop, "text.corp.internal", "TXT") == ['"hello', "from", "the", 'office"']


def test_an_unknown_type_passes_through(laptop: Host) -> None:
    assert short(laptop, "odd.corp.internal", "TYPE65280") == ["\\#", "4", "0A0A000A"]


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dig_over_udp_and_over_tcp(laptop: Host, transport: str) -> None:
    """Internal, under a wildcard, public, unknown, none, and (over TCP at once) large."""
    for name in ("payroll.internal", "web.corp.internal"):
        (address,) = short(laptop, transport, name)
        assert ipaddress.ip_address(address) in SYNTHETIC
    assert short(laptop, transport, "www.example.com") == ["203.0.113.1"]
    assert short(laptop, transport, "odd.corp.internal", "TYPE65280") == ["\\#", "4", "0A0A000A"]
    assert "status: NXDOMAIN" in said(laptop, transport, "ghost.corp.internal")
    large = said(laptop, transport, "big.corp.internal", "TXT")
    assert large.count("x" * 250) == 8 and "(TCP)" in large


def test_long_text_comes_whole_over_tcp(laptop: Host) -> None:
    cut = said(laptop, "+ignore", "big.corp.internal", "TXT")
    assert " tc" in cut and "ANSWER: 0" in cut
    whole = said(laptop, "big.corp.internal", "TXT")
    assert "(TCP)" in whole and whole.count("x" * 250) == 8


def test_services_inside_are_kept_and_others_left_out(laptop: Host) -> None:
    assert short(laptop, "_ldap._tcp.corp.internal", "SRV") == ["0", "5", "389", "web.corp.internal."]
    outside = said(laptop, "_sip._tcp.corp.internal", "SRV")
    assert "ANSWER: 0" in outside and "outside the hostname routes" in outside
    assert short(laptop, "mail.corp.internal", "MX") == ["10", "web.corp.internal."]


def test_hints_of_addresses_are_taken_out(laptop: Host) -> None:
    answer = " ".join(short(laptop, "web.corp.internal", "HTTPS"))
    assert "alpn" in answer and "port=8443" in answer
    assert "hint" not in answer
    assert "ANSWER: 0" in said(laptop, "outwards2.corp.internal", "HTTPS")


def test_an_alias_that_leads_outwards_leads_through_the_tunnel(laptop: Host) -> None:
    """Its target is the connector's to look up; the asker never hears of it."""
    assert short(laptop, "outwards.corp.internal", "CNAME") == []
    assert "www.example.com" not in said(laptop, "outwards.corp.internal")


def test_the_name_of_a_captured_address_is_the_sites(laptop: Host) -> None:
    assert short(laptop, "-x", "10.10.0.10") == ["payroll.internal."]
    assert "status: NXDOMAIN" in said(laptop, "-x", "10.10.0.99")


def test_a_synthetic_address_that_nobody_has_has_no_name(laptop: Host) -> None:
    assert "status: NXDOMAIN" in said(laptop, "-x", "100.80.255.250")


def test_programs_find_a_name_under_local(laptop: Host) -> None:
    """By the C library, as resolv.conf and nsswitch.conf say."""
    assert laptop.run(["getent", "ahostsv4", LOCAL]).stdout.split()[0] == short(laptop, LOCAL)[0]


def test_programs_find_it_where_mdns_comes_first_too(laptop: Host) -> None:
    """nss-mdns leaves names of more than two labels to the next module; where it is not installed, glibc goes on."""
    before = laptop.read("/etc/nsswitch.conf")
    laptop.write("/etc/nsswitch.conf", "hosts: files mdns4_minimal [NOTFOUND=return] dns\n")
    try:
        assert laptop.run(["getent", "ahostsv4", LOCAL]).stdout.split()[0] == short(laptop, LOCAL)[0]
    finally:
        laptop.write("/etc/nsswitch.conf", before)


def test_the_route_of_a_name_is_told(deployment: Deployment, laptop: Host) -> None:
    found = json.loads(deployment.warren(deployment.edge, "route", "get", "web.eu.corp.internal", "--json"))
    assert (found["route"]["value"], found["route"]["status"]) == (WILDCARD, "healthy")
