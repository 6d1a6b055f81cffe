"""What an upstream said, and handing it on."""

from __future__ import annotations

import time

import dnslib
import pytest
from dnslib import AAAA, CNAME, DNAME, MX, NS, QTYPE, RR, SOA, TXT, A, DNSHeader, DNSQuestion, DNSRecord, EDNSOption
from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core import dnsreply, dnswire


def said(
    name: str, *records: RR, kind: str = "A", rcode: int = 0, auth: tuple[RR, ...] = (), ar: tuple[RR, ...] = ()
) -> bytes:
    message = DNSRecord(DNSHeader(id=7, qr=1, ra=1, rcode=rcode), q=DNSQuestion(name, getattr(QTYPE, kind)))
    message.add_answer(*records)
    message.add_auth(*auth)
    message.add_ar(*ar)
    return bytes(message.pack())


def soa(zone: str, ttl: int, minimum: int) -> RR:
    return RR(zone, QTYPE.SOA, rdata=SOA("ns.x", "h.x", (1, 2, 3, 4, minimum)), ttl=ttl)


def read(message: bytes) -> dnsreply.Reply:
    reply = dnsreply.read_reply(message)
    assert reply is not None
    return reply


def question(name: str = "www.example", *, edns: bool = True, flags: int = dnswire.RD) -> dnswire.Question:
    found = dnswire.read_question(dnswire.build_query(99, dnswire.name_wire(name), dnswire.A, edns=edns, flags=flags))
    assert isinstance(found, dnswire.Question)
    return found


CHAIN = said(
    "www.example",
    RR("www.example", QTYPE.CNAME, rdata=CNAME("CDN.tracker.example"), ttl=300),
    RR("cdn.tracker.example", QTYPE.CNAME, rdata=CNAME("edge.example"), ttl=20),
    RR("edge.example", QTYPE.A, rdata=A("192.0.2.1"), ttl=60),
    RR("edge.example", QTYPE.A, rdata=A("192.0.2.2"), ttl=60),
    RR("other.example", QTYPE.A, rdata=A("10.0.0.1"), ttl=60),
)


def test_addresses_stand_behind_the_aliases() -> None:
    reply = read(CHAIN)
    assert [dnswire.name_text(name) for name in reply.chain] == ["cdn.tracker.example", "edge.example"]
    assert reply.addresses == (bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))
    assert reply.ttl == 20 and not reply.negative and reply.id == 7


def test_no_such_name_lasts_as_the_soa_says() -> None:
    assert read(said("a.example", rcode=3, auth=(soa("example", 900, 60),))).ttl == 60
    assert read(said("a.example", rcode=3, auth=(soa("example", 30, 60),))).ttl == 30
    reply = read(said("a.example", rcode=3))
    assert reply.ttl == 0 and reply.negative  # without an SOA it is not kept (RFC 2308, section 5)


def test_no_data_behind_an_alias() -> None:
    alias = RR("a.example", QTYPE.CNAME, rdata=CNAME("b.example"), ttl=20)
    reply = read(said("a.example", alias, kind="AAAA", auth=(soa("example", 900, 60),)))
    assert reply.negative and reply.ttl == 20
    moved = RR("example", QTYPE.DNAME, rdata=DNAME("example.net"), ttl=20)
    assert read(said("a.example", moved, alias, kind="AAAA", auth=(soa("example", 900, 60),))).negative
    assert not read(said("a.example", alias, kind="CNAME")).negative


def test_a_loop_of_aliases_ends() -> None:
    one = RR("a.example", QTYPE.CNAME, rdata=CNAME("b.example"), ttl=20)
    two = RR("b.example", QTYPE.CNAME, rdata=CNAME("a.example"), ttl=20)
    assert read(said("a.example", one, two)).addresses == ()


def test_opt_is_ours_and_goes() -> None:
    option = EDNSOption(15, b"\x00\x06bogus signature")
    glue = RR("ns.example", QTYPE.A, rdata=A("192.0.2.9"), ttl=5000)
    opt = dnslib.EDNS0(udp_len=4096, ext_rcode=1, opts=[option])
    reply = read(said("a.example", RR("a.example", rdata=A("192.0.2.1"), ttl=9), ar=(glue, opt)))
    assert reply.extended == dnswire.Extended(6, "bogus signature") and reply.rcode == 16
    kept = DNSRecord.parse(reply.body)
    assert [rr.rtype for rr in kept.ar] == [QTYPE.A]


def test_handing_on() -> None:
    reply = read(CHAIN)
    out = dnsreply.render(reply.body, reply.ttls, question("wWw.example"), 15)
    parsed = DNSRecord.parse(out)
    assert parsed.header.id == 99 and [rr.ttl for rr in parsed.rr] == [285, 5, 45, 45, 45]
    assert parsed.ar[0].rtype == QTYPE.OPT
    capped = dnsreply.render(reply.body, reply.ttls, question(edns=False), 0, cap=30)
    assert [rr.ttl for rr in DNSRecord.parse(capped).rr] == [30, 20, 30, 30, 30]
    assert DNSRecord.parse(capped).header.ar == 0
    assert DNSRecord.parse(dnsreply.render(reply.body, reply.ttls, question(), 10_000)).rr[0].ttl == 0


def test_handing_on_keeps_the_spelling_asked_for() -> None:
    reply = read(CHAIN)
    query = dnswire.build_query(99, b"\x03wWw\x07eXample\x00", dnswire.A)
    found = dnswire.read_question(query)
    assert isinstance(found, dnswire.Question)
    assert dnsreply.render(reply.body, reply.ttls, found)[12:25] == b"\x03wWw\x07eXample\x00"


def test_authentic_data_only_for_who_asks() -> None:
    message = bytearray(CHAIN)
    message[3] |= dnswire.AD
    reply = read(bytes(message))
    assert reply.authentic
    assert not dnsreply.render(reply.body, reply.ttls, question())[3] & dnswire.AD
    assert dnsreply.render(reply.body, reply.ttls, question(flags=dnswire.RD | dnswire.AD))[3] & dnswire.AD


def test_handing_on_what_is_too_long() -> None:
    many = [RR("www.example", rdata=A(f"192.0.2.{n}"), ttl=9) for n in range(100)]
    reply = read(said("www.example", *many))
    cut = DNSRecord.parse(dnsreply.render(reply.body, reply.ttls, question(), limit=1232))
    assert cut.header.tc and cut.header.a == 0 and cut.header.ar == 1
    assert DNSRecord.parse(dnsreply.render(reply.body, reply.ttls, question())).header.a == 100


def test_sixty_four_kibibytes() -> None:
    many = [RR("www.example", rdata=A(f"10.{n >> 8}.{n & 255}.1"), ttl=9) for n in range(4090)]
    message = said("www.example", *many)
    assert 65000 < len(message) <= 65535
    assert len(read(message).addresses) == 4090
    assert dnsreply.read_reply(message + b"x" * 65536) is None


@pytest.mark.parametrize("name", ["mx", "txt"])
def test_other_types_pass(name: str) -> None:
    rdata = MX("mail.example") if name == "mx" else TXT("hello")
    reply = read(said("example", RR("example", getattr(QTYPE, name.upper()), rdata=rdata, ttl=77), kind=name.upper()))
    assert reply.ttl == 77 and reply.found == 1 and reply.addresses == ()


@given(st.binary(max_size=300))
def test_reading_is_total(message: bytes) -> None:
    dnsreply.read_reply(message)


@given(st.data())
def test_reading_what_was_bent_is_total(data: st.DataObject) -> None:
    message = bytearray(
        said(
            "www.example",
            RR("www.example", QTYPE.CNAME, rdata=CNAME("b.example"), ttl=300),
            RR("b.example", QTYPE.AAAA, rdata=AAAA("2001:db8::1"), ttl=60),
            auth=(RR("example", QTYPE.NS, rdata=NS("ns.example"), ttl=5), soa("example", 9, 9)),
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        message[data.draw(st.integers(2, len(message) - 1))] = data.draw(st.integers(0, 255))
    reply = dnsreply.read_reply(bytes(message[: data.draw(st.integers(0, len(message)))]))
    if reply is not None and reply.name == dnswire.name_wire("www.example"):
        dnsreply.render(reply.body, reply.ttls, question(), 3)


def chained(records: int, size: int) -> bytes:
    """A message of names that point at names: as many steps as the format has room for."""
    head = b"\x00\x07\x81\x80\x00\x01" + records.to_bytes(2, "big") + bytes(4)
    out = bytearray(head + b"\x01a\x00\x00\x01\x00\x01")
    last = 12
    while len(out) + 30 < size:
        here = len(out)
        out += b"\x01b" + (0xC000 | last).to_bytes(2, "big") + b"\x00\x05\x00\x01\x00\x00\x00\x09\x00\x02"
        out += (0xC000 | here).to_bytes(2, "big")
        last = here
    return bytes(out[:size])


@pytest.mark.parametrize("shape", ["names", "pointers", "labels"])
def test_four_kilobytes_of_mischief_cost_less_than_a_millisecond(shape: str) -> None:
    head = b"\x00\x07\x81\x80\x00\x01\x00\x64\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
    if shape == "names":
        message = chained(250, 4096)
    elif shape == "pointers":
        message = head + b"".join((0xC000 | at).to_bytes(2, "big") for at in range(12, 4000, 2))
    else:
        record = b"\x01x" * 126 + b"\x00\x00\x05\x00\x01\x00\x00\x00\x09\x00\x02\xc0\x0c"
        message = head + record * 15
    best = min(_timed(message) for _ in range(20))
    assert best < 0.001


def _timed(message: bytes) -> float:
    started = time.perf_counter()
    dnsreply.read_reply(message)
    return time.perf_counter() - started
