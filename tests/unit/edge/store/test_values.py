"""What may enter the store, in which form, and the line that says why not."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.edge.store import values
from warren.edge.store.errors import InvalidError


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("10.10.0.0/16", "10.10.0.0/16"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        (" FD00:0::/8 ", "fd00::/8"),
        ("fd00::1", "fd00::1/128"),
        ("169.254.169.254/32", "169.254.169.254/32"),
    ],
)
def test_cidrs(text: str, kept: str) -> None:
    assert values.cidr(text) == kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.10.3.0/16", "write 10.10.0.0/16"),
        ("fd00::1/64", "write fd00::/64"),
        ("10.10.0.0/33", "is no CIDR"),
        ("payroll.internal", "as in 10.10.0.0/16"),
        ("", "is no CIDR"),
        ("fe80::%eth0/64", "is no CIDR"),
        ("0.0.0.0/0", "default route"),
        ("::/0", "default route"),
        ("0.0.0.0/1", "not carried"),
        ("128.0.0.0/1", "multicast"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:10.0.0.0/104", "IPv4 written as IPv6"),
        ("224.0.0.251", "multicast"),
        ("fe80::/64", "link-local"),
    ],
)
def test_cidrs_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        values.cidr(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Payroll.Internal.", "payroll.internal"),
        ("*.corp.internal", "*.corp.internal"),
        ("intranet", "intranet"),
        ("_ldap._tcp.corp", "_ldap._tcp.corp"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.BÜCHER。example", "*.xn--bcher-kva.example"),
        ("a" * 63 + ".b", "a" * 63 + ".b"),
    ],
)
def test_hostnames(text: str, kept: str) -> None:
    assert values.hostname(text) == kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no hostname"),
        ("*", "no hostname"),
        ("*.", "no hostname"),
        ("a.*.b", "at most one"),
        ("*.*.b", "at most one"),
        ("*foo.b", "at most one"),
        ("a..b", "no hostname"),
        ("-a.b", "no hostname"),
        ("a b.c", "no hostname"),
        ("a\x00.c", "no hostname"),
        ("a" * 64 + ".b", "no hostname"),
        (".".join(["a" * 60] * 5), "253 are allowed"),
        ("10.1.2.3", "kind ip"),
        ("10.1.0.0/16", "kind ip"),
        ("[fd00::1]", "kind ip"),
        ("a.10.1.2.300", "number"),
        ("\u2603\ufe0f.\u200d", "no hostname"),
    ],
)
def test_hostnames_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        values.hostname(text)


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-fA-F:.]{0,40}/[0-9]{0,3}")))
def test_any_text_is_a_cidr_in_its_one_form_or_refused_in_one_line(text: str) -> None:
    try:
        kept = values.cidr(text)
    except InvalidError as error:
        assert str(error).isprintable()
        return
    assert str(ipaddress.ip_network(kept)) == kept
    assert values.cidr(kept) == kept


@given(st.one_of(st.text(), st.from_regex(r"(\*\.)?[\w*.-]{0,300}")))
def test_any_text_is_a_hostname_in_its_one_form_or_refused_in_one_line(text: str) -> None:
    try:
        kept = values.hostname(text)
    except InvalidError as error:
        assert str(error).isprintable()
        return
    assert kept.isascii()
    assert len(kept) <= values.NAME_LIMIT
    assert values.hostname(kept) == kept


@given(st.text())
def test_names_and_comments(text: str) -> None:
    checks = [values.virtual_network, values.identifier, values.comment]
    checks += [lambda said: values.name(said, "device"), lambda said: values.digest(said, "it")]
    for check in checks:
        try:
            assert check(text) == text
        except InvalidError as error:
            assert str(error).isprintable()
    assert values.said_host(text).isprintable()
    assert len(values.said_host(text)) <= values.HOST_LIMIT


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Corp.Example.", "corp.example"),
        ("10.10.0.0/16", "10.10.in-addr.arpa"),
        ("10.0.0.0/8", "10.in-addr.arpa"),
        ("fd00:1234::/32", "4.3.2.1.0.0.d.f.ip6.arpa"),
        ("10.10.in-addr.arpa", "10.10.in-addr.arpa"),
    ],
)
def test_zones(text: str, kept: str) -> None:
    assert values.zone(text) == kept


@pytest.mark.parametrize("text", ["*.corp.example", "10.10.0.0/17", "10.10.0.1/16", "", "a..b", "x/16"])
def test_what_is_no_zone(text: str) -> None:
    with pytest.raises(InvalidError):
        values.zone(text)


@pytest.mark.parametrize(
    ("text", "kept", "split"),
    [
        ("10.10.0.53", "10.10.0.53", ("10.10.0.53", 53)),
        ("10.10.0.53:53", "10.10.0.53", ("10.10.0.53", 53)),
        (" 10.10.0.53:5353 ", "10.10.0.53:5353", ("10.10.0.53", 5353)),
        ("FD00::53", "fd00::53", ("fd00::53", 53)),
        ("[fd00::53]:5353", "[fd00::53]:5353", ("fd00::53", 5353)),
    ],
)
def test_name_servers(text: str, kept: str, split: tuple[str, int]) -> None:
    assert values.server(text) == kept
    assert values.split_server(kept) == split


@given(st.one_of(st.text(), st.from_regex(r"\[?[0-9a-f:.]{0,20}\]?(:[0-9]{0,7})?")))
def test_any_text_is_a_name_server_in_its_one_form_or_refused_in_one_line(text: str) -> None:
    try:
        kept = values.server(text)
    except InvalidError as error:
        assert str(error).isprintable()
        return
    assert values.server(kept) == kept
    host, port = values.split_server(kept)
    assert ipaddress.ip_address(host) and 1 <= port <= 65_535
