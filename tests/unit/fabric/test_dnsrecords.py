"""Records that move to another message: names expanded, what leads past the hostname routes left out."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core import dnsrecords, dnswire

ZONE = dnswire.name_wire("corp.internal")
NAME = "app.corp.internal"


def under(name: bytes) -> bool:
    return name != ZONE and dnswire.is_under(name, ZONE)


def question(kind: int, name: str = NAME) -> dnswire.Question:
    read = dnswire.read_question(dnswire.build_query(7, dnswire.name_wire(name), kind))
    assert isinstance(read, dnswire.Question)
    return read


def sections(zone: str, kind: int, name: str = NAME) -> dnsrecords.Sections:
    """What dnslib makes of a zone file, with all its compression."""
    reply = dnslib.DNSRecord(dnslib.DNSHeader(id=7, qr=1), q=dnslib.DNSQuestion(name, kind))
    reply.add_answer(*dnslib.RR.fromZone(zone))
    read = dnsrecords.read_sections(reply.pack())
    assert read is not None
    return read


def near(zone: str, kind: int, name: str = NAME) -> dnsrecords.Near:
    return dnsrecords.near(sections(zone, kind, name), question(kind, name), under)


def shown(found: dnsrecords.Near, kind: int) -> list[str]:
    """The records as dnslib reads them out of the answer that the app gets."""
    message = dnswire.answer(question(kind), records=found.records)
    return [str(record.rdata) for record in dnslib.DNSRecord.parse(message).rr]


def test_names_in_records_are_expanded() -> None:
    zone = "app.corp.internal. 60 IN MX 10 mail.corp.internal.\napp.corp.internal. 60 IN MX 20 Mail2.corp.internal."
    found = near(zone, dnswire.MX)
    assert shown(found, dnswire.MX) == ["10 mail.corp.internal.", "20 Mail2.corp.internal."]
    assert [record.ttl for record in found.records] == [60, 60]


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (dnswire.SRV, "10 5 5060 sip.corp.internal.", "10 5 5060 sip.example.com."),
        (dnswire.MX, "10 mail.corp.internal.", "10 mail.example.com."),
        (dnswire.NS, "ns.corp.internal.", "ns.example.com."),
        (dnswire.CNAME, "b.corp.internal.", "b.example.com."),
        (dnswire.PTR, "b.corp.internal.", "b.example.com."),
        (dnswire.SRV, "0 0 0 .", "10 5 5060 notcorp.internal."),
    ],
)
def test_targets_are_kept_under_a_hostname_route_only(kind: int, inside: str, outside: str) -> None:
    word = dnslib.QTYPE[kind]
    found = near(f"{NAME}. 60 IN {word} {inside}\n{NAME}. 60 IN {word} {outside}", kind)
    assert (shown(found, kind), found.left_out) == ([inside], 1)


def test_a_chain_is_flattened_to_the_name_that_was_asked_for() -> None:
    zone = (
        f'{NAME}. 60 IN CNAME x.example.com.\nx.example.com. 60 IN CNAME y.example.com.\ny.example.com. 5 IN TXT "hi"'
    )
    found = near(zone, dnswire.TXT)
    assert [record.owner for record in found.records] == [b""]
    assert shown(found, dnswire.TXT) == ['"hi"']


def test_a_chain_that_bites_its_tail_ends() -> None:
    assert near(f"{NAME}. 60 IN CNAME b.example.\nb.example. 60 IN CNAME {NAME}.", dnswire.TXT).records == ()


def test_records_of_other_names_and_types_are_left_behind() -> None:
    zone = f'other.example. 60 IN TXT "no"\n{NAME}. 60 IN A 10.0.0.1\n{NAME}. 60 IN TXT "yes"'
    assert shown(near(zone, dnswire.TXT), dnswire.TXT) == ['"yes"']


@pytest.mark.parametrize("kind", [dnswire.A, dnswire.AAAA])
def test_addresses_never_come_out(kind: int) -> None:
    data = "10.0.0.1" if kind == dnswire.A else "fd00::1"
    assert near(f"{NAME}. 60 IN {dnslib.QTYPE[kind]} {data}", kind).records == ()


def raw(kind: int, rdata: bytes, name: str = NAME) -> dnsrecords.Sections:
    message = dnswire.answer(question(kind, name), records=[dnswire.Record(kind, rdata, 60)])
    read = dnsrecords.read_sections(message)
    assert read is not None
    return read


def parameter(key: int, value: bytes) -> bytes:
    return struct.pack("!HH", key, len(value)) + value


ALPN = parameter(1, b"\x02h2")
PORT = parameter(3, b"\x20\xfb")
HINT4 = parameter(4, IPv4Address("10.0.0.1").packed)
HINT6 = parameter(6, IPv6Address("fd00::1").packed)


@pytest.mark.parametrize("kind", [dnswire.HTTPS, dnswire.SVCB])
@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"\x00\x01\x00" + ALPN + PORT + HINT4 + HINT6, b"\x00\x01\x00" + ALPN + PORT),
        (b"\x00\x01\x00" + HINT6, b"\x00\x01\x00"),
        (
            b"\x00\x01\x00" + parameter(0, b"\x00\x01\x00\x04") + ALPN + HINT4,
            b"\x00\x01\x00" + parameter(0, b"\x00\x01") + ALPN,
        ),
        (b"\x00\x01\x00" + parameter(0, b"\x00\x04") + HINT4, b"\x00\x01\x00"),
        (b"\x00\x01" + dnswire.name_wire("b.corp.internal") + ALPN, b"\x00\x01\x01b\x04corp\x08internal\x00" + ALPN),
        (b"\x00\x00" + dnswire.name_wire("b.corp.internal"), b"\x00\x00\x01b\x04corp\x08internal\x00"),
        (b"\x00\x01" + dnswire.name_wire("cdn.example.com") + ALPN, None),
        (b"\x00\x00" + dnswire.name_wire("cdn.example.com"), None),
        (b"\x00\x01\x00" + ALPN[:-1], None),
        (b"\x00\x01\x00\x00", None),
        (b"\x00\x01\x05ab", None),
        (b"\x00", None),
    ],
)
def test_address_hints_are_taken_out(kind: int, data: bytes, left: bytes | None) -> None:
    found = dnsrecords.near(raw(kind, data), question(kind), under)
    assert [record.rdata for record in found.records] == ([] if left is None else [left])
    assert found.left_out == (left is None)


@given(st.binary(max_size=300))
def test_an_unknown_type_passes_byte_for_byte(data: bytes) -> None:
    found = dnsrecords.near(raw(65280, data), question(65280), under)
    assert [record.rdata for record in found.records] == [data]


def test_a_negative_answer_keeps_its_soa() -> None:
    soa = dnswire.soa(ZONE, 17)
    read = dnsrecords.read_sections(dnswire.answer(question(dnswire.A), dnswire.NXDOMAIN, authority=[soa]))
    assert read is not None and read.rcode == dnswire.NXDOMAIN
    (kept,) = dnsrecords.negative_authority(read)
    assert (kept.owner, kept.type, kept.ttl, kept.rdata) == (ZONE, dnswire.SOA, 17, soa.rdata)


@given(st.binary(max_size=400))
def test_reading_is_total(message: bytes) -> None:
    read = dnsrecords.read_sections(message)
    assert read is None or isinstance(read, dnsrecords.Sections)


@given(st.integers(0, 5), st.sampled_from([2, 5, 6, 12, 15, 33, 64, 65, 35, 65280]), st.binary(max_size=200))
def test_reading_is_total_behind_a_plausible_question(count: int, kind: int, rest: bytes) -> None:
    head = struct.pack("!HHHHHH", 7, dnswire.QR, 1, count, 0, 0) + dnswire.name_wire(NAME) + struct.pack("!HH", kind, 1)
    read = dnsrecords.read_sections(head + rest)
    if read is not None:
        dnsrecords.near(read, question(kind), under)


def test_pointers_that_go_in_circles_are_refused_in_linear_time() -> None:
    head = struct.pack("!HHHHHH", 7, dnswire.QR, 1, 2000, 0, 0) + dnswire.name_wire(NAME) + b"\x00\x02\x00\x01"
    record = b"\xc0\x0c" + struct.pack("!HHIH", 2, 1, 60, 2)
    for target in (len(head), len(head) + len(record)):
        assert dnsrecords.read_sections(head + record + struct.pack("!H", 0xC000 | target)) is None
    deep = b"\x01a" * 120
    message = head[:12] + deep + b"\x00\x00\x02\x00\x01" + (record + b"\xc0\x0c") * 2000
    assert dnsrecords.read_sections(message) is None


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("5.0.10.10.in-addr.arpa", IPv4Address("10.10.0.5").packed),
        ("255.0.10.10.IN-ADDR.arpa", IPv4Address("10.10.0.255").packed),
        (IPv6Address("fd00::42").reverse_pointer, IPv6Address("fd00::42").packed),
        ("0.10.10.in-addr.arpa", None),
        ("1.5.0.10.10.in-addr.arpa", None),
        ("256.0.10.10.in-addr.arpa", None),
        ("x.0.10.10.in-addr.arpa", None),
        ("in-addr.arpa", None),
        ("g" + IPv6Address("fd00::42").reverse_pointer[1:], None),
        ("10" + IPv6Address("fd00::42").reverse_pointer[1:], None),
        ("payroll.internal", None),
    ],
)
def test_reverse_names(name: str, address: bytes | None) -> None:
    assert dnsrecords.reverse_address(dnswire.name_wire(name)) == address


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=6), st.sampled_from(["in-addr.arpa", "ip6.arpa"]))
def test_reverse_names_are_read_totally(labels: list[bytes], zone: str) -> None:
    wire = b"".join(bytes((len(label),)) + label.lower() for label in labels) + dnswire.name_wire(zone)
    dnsrecords.reverse_address(wire)
