"""Guarded questions, answers of ours, names."""

from __future__ import annotations

import time

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core import dnswire as wire

LABEL = st.binary(min_size=1, max_size=63)
NAMES = st.lists(LABEL, max_size=8).filter(lambda labels: sum(map(len, labels)) + len(labels) < 255)


def wired(labels: list[bytes]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"


def asked(name: str = "payroll.internal", kind: int = wire.A, **options: bool) -> wire.Question:
    question = wire.read_question(wire.build_query(0x1234, wire.name_wire(name), kind, **options))
    assert isinstance(question, wire.Question)
    return question


@given(NAMES, st.integers(0, 65535), st.integers(0, 65535), st.booleans(), st.booleans())
def test_what_is_asked_is_what_is_read(labels: list[bytes], ident: int, kind: int, edns: bool, do: bool) -> None:
    raw = wired(labels)
    question = wire.read_question(wire.build_query(ident, raw, kind, dnssec_ok=do, edns=edns))
    assert isinstance(question, wire.Question)
    assert (question.id, question.raw, question.name, question.type) == (ident, raw, raw.lower(), kind)
    assert question.edns == edns and question.dnssec_ok == (do and edns)


@given(st.binary(max_size=300))
def test_the_guard_is_total(message: bytes) -> None:
    assert isinstance(wire.read_question(message), wire.Question | wire.Unreadable)


@given(st.binary(max_size=80), st.integers(0, 3), st.integers(0, 2))
def test_the_guard_is_total_behind_a_plausible_header(rest: bytes, additional: int, answers: int) -> None:
    head = bytes((0, 1, 1, 0, 0, 1, 0, answers, 0, 0, 0, additional))
    result = wire.read_question(head + rest)
    if isinstance(result, wire.Unreadable) and result.answer:
        assert result.answer[:2] == b"\x00\x01" and result.answer[2] & 0x80


def header(flags: int = wire.RD, qd: int = 1, an: int = 0, ns: int = 0, ar: int = 0) -> bytes:
    return b"".join(n.to_bytes(2, "big") for n in (7, flags, qd, an, ns, ar))


A_IN = b"\x00\x01\x00\x01"
OPT = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("message", "rcode"),
    [
        (b"", None),
        (b"\x00" * 11, None),
        (header(wire.QR) + b"\x01a\x00" + A_IN, None),  # an answer is never answered
        (header(0x2800) + b"\x01a\x00" + A_IN, wire.NOTIMP),  # UPDATE
        (header(qd=0), wire.FORMERR),
        (header(qd=2) + b"\x01a\x00" + A_IN + b"\x01b\x00" + A_IN, wire.FORMERR),  # RFC 9619
        (header(an=1) + b"\x01a\x00" + A_IN, wire.FORMERR),
        (header(ar=3) + b"\x01a\x00" + A_IN + OPT, wire.FORMERR),
        (header() + b"\xc0\x0c" + A_IN, wire.FORMERR),  # a pointer in the question's name
        (header() + b"\x41" + b"a" * 65 + b"\x00" + A_IN, wire.FORMERR),  # RFC 2673 labels are gone
        (header() + b"\x01a" * 127 + b"\x00" + A_IN, 0),  # 255 bytes
        (header() + b"\x01a" * 127 + b"\x01a\x00" + A_IN, wire.FORMERR),  # 257
        (header() + b"\x01a\x00\x00", wire.FORMERR),
        (header() + b"\x01a\x00" + A_IN + b"x", wire.FORMERR),  # rubbish behind it
        (header(ar=1) + b"\x01a\x00" + A_IN + OPT, 0),
        (header(ar=2) + b"\x01a\x00" + A_IN + OPT + OPT, wire.FORMERR),  # RFC 6891, section 6.1.1
        (header(ar=1) + b"\x01a\x00" + A_IN + b"\x01x" + OPT, wire.FORMERR),  # OPT belongs to the root
        (header() + b"\x01a\x00" + A_IN + b"\x00" * wire.QUERY_MAX, wire.FORMERR),
    ],
)
def test_what_the_guard_says(message: bytes, rcode: int | None) -> None:
    result = wire.read_question(message)
    if rcode == 0:
        assert isinstance(result, wire.Question)
    else:
        assert isinstance(result, wire.Unreadable)
        assert (result.answer[3] & 15 if result.answer else None) == rcode


def test_a_later_edns_version_is_told_ours() -> None:
    opt = b"\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00"
    result = wire.read_question(header(ar=1) + b"\x01a\x00" + A_IN + opt)
    assert isinstance(result, wire.Unreadable)
    parsed = dnslib.DNSRecord.parse(result.answer)
    assert parsed.header.rcode == 0 and parsed.ar[0].edns_rcode == 1  # 16 in all: BADVERS


@pytest.mark.parametrize(("offered", "taken"), [(0, 512), (512, 512), (1232, 1232), (65535, 1232)])
def test_the_payload_size_is_clamped(offered: int, taken: int) -> None:
    opt = b"\x00\x00\x29" + offered.to_bytes(2, "big") + bytes(6)
    question = wire.read_question(header(ar=1) + b"\x01a\x00" + A_IN + opt)
    assert isinstance(question, wire.Question) and question.udp_size == taken


def test_chained_pointers_cost_nothing() -> None:
    message = (
        header(an=1) + b"\x01a\x00" + A_IN + b"".join((0xC000 | at).to_bytes(2, "big") for at in range(12, 4000, 2))
    )
    started = time.perf_counter()
    for _ in range(100):
        wire.read_question(message[:4096])
    assert (time.perf_counter() - started) / 100 < 0.001


def test_addresses_of_the_family_asked_for() -> None:
    mixed = [bytes((10, 0, 0, 1)), bytes(15) + b"\x01"]
    four = dnslib.DNSRecord.parse(wire.answer_addresses(asked(), mixed, 30))
    assert [(str(rr.rname), str(rr.rdata), rr.ttl) for rr in four.rr] == [("payroll.internal.", "10.0.0.1", 30)]
    six = dnslib.DNSRecord.parse(wire.answer_addresses(asked(kind=wire.AAAA), mixed, 30))
    assert [str(rr.rdata) for rr in six.rr] == ["::1"]
    assert dnslib.DNSRecord.parse(wire.answer_addresses(asked(kind=wire.MX), mixed, 30)).header.a == 0


def test_the_case_asked_for_comes_back() -> None:
    question = wire.read_question(wire.build_query(1, b"\x07PayRoll\x08INTERNAL\x00", wire.A))
    assert isinstance(question, wire.Question) and question.text == "payroll.internal"
    assert b"\x07PayRoll\x08INTERNAL\x00" in wire.answer_addresses(question, [bytes(4)], 1)


def test_a_pointer_record() -> None:
    question = asked("5.0.80.100.in-addr.arpa", wire.PTR)
    parsed = dnslib.DNSRecord.parse(wire.answer_pointer(question, wire.name_wire("payroll.internal"), 30))
    assert str(parsed.rr[0].rdata) == "payroll.internal."


def test_no_such_name_with_its_soa() -> None:
    zone = wire.name_wire("internal")
    parsed = dnslib.DNSRecord.parse(wire.answer(asked(), wire.NXDOMAIN, authority=[wire.soa(zone, 60)]))
    assert parsed.header.rcode == wire.NXDOMAIN
    assert str(parsed.auth[0].rname) == "internal." and parsed.auth[0].rdata.times[-1] == 60


def test_an_extended_error_in_words() -> None:
    said = wire.Extended(wire.EDE_BLOCKED, "rule ads")
    parsed = dnslib.DNSRecord.parse(wire.answer(asked(), wire.NXDOMAIN, extended=said))
    (option,) = parsed.ar[0].rdata
    assert (option.code, option.data) == (15, b"\x00\x0frule ads")
    plain = wire.answer(asked(edns=False), wire.NXDOMAIN, extended=said)
    assert dnslib.DNSRecord.parse(plain).header.ar == 0  # no OPT for who sent none (RFC 6891, section 7)


@given(st.text(max_size=400))
def test_an_extended_error_is_cut_at_a_character(text: str) -> None:
    option = wire.ede_option(wire.Extended(15, text))
    assert int.from_bytes(option[2:4], "big") == len(option) - 4 <= wire.EDE_TEXT_MAX + 2
    assert text.startswith(option[6:].decode())


def test_what_is_too_long_is_truncated() -> None:
    records = [wire.Record(wire.A, bytes((10, 0, 0, n)), 30) for n in range(60)]
    question = asked(edns=False)
    cut = wire.answer(question, records=records, limit=wire.limit_for(question, "udp"))
    parsed = dnslib.DNSRecord.parse(cut)
    assert len(cut) <= 512 and parsed.header.tc == 1 and parsed.header.a == 0
    assert (
        dnslib.DNSRecord.parse(wire.answer(question, records=records, limit=wire.limit_for(question, "tcp"))).header.a
        == 60
    )


def test_a_bare_refusal() -> None:
    query = wire.build_query(0x4242, wire.name_wire("a.b"), wire.A)
    assert wire.refusal(query) == b"\x42\x42\x81\x82" + bytes(8)
    assert wire.refusal(wire.refusal(query)) == b"" and wire.refusal(b"x") == b""


@given(NAMES)
def test_names_to_text_and_back(labels: list[bytes]) -> None:
    name = wired(labels).lower()
    assert wire.name_wire(wire.name_text(name)) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (".", b"\x00"),
        ("Payroll.Internal.", b"\x07payroll\x08internal\x00"),
        ("bücher.example", b"\x0dxn--bcher-kva\x07example\x00"),
        (r"a\.b.c", b"\x03a.b\x01c\x00"),
        (r"a\000.c", b"\x02a\x00\x01c\x00"),
    ],
)
def test_names_of_every_kind(text: str, name: bytes) -> None:
    assert wire.name_wire(text) == name


@pytest.mark.parametrize("text", ["a..b", ".a", "a" * 64, "a." * 128, "\\", "a\\", "\\25", "\\999", "ü..b"])
def test_no_names(text: str) -> None:
    with pytest.raises(ValueError):
        wire.name_wire(text)


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_none(text: str) -> None:
    try:
        name = wire.name_wire(text)
    except ValueError:
        return
    assert len(name) <= 255 and wire.skip_name(name, 0) == len(name)


def test_under_a_zone() -> None:
    zone = wire.name_wire("corp.internal")
    assert wire.is_under(wire.name_wire("corp.internal"), zone)
    assert wire.is_under(wire.name_wire("a.b.corp.internal"), zone)
    assert not wire.is_under(wire.name_wire("xcorp.internal"), zone)
    assert not wire.is_under(b"\x0ex\x04corp\x08internal\x00", zone)  # the bytes match, the labels do not
    assert wire.is_under(zone, b"\x00")
    assert [wire.name_text(name) for name in wire.suffixes(zone)] == ["corp.internal", "internal"]


PLAIN = st.lists(st.sampled_from([b"a", b"bcd", b"x" * 40]), max_size=5)


@given(PLAIN, st.integers(0, 60), st.sampled_from([128, 468]), st.text(max_size=60))
def test_padding_to_a_block(labels: list[bytes], count: int, block: int, text: str) -> None:
    question = wire.read_question(wire.build_query(1, wired(labels), wire.A))
    assert isinstance(question, wire.Question) and not question.padded
    records = [wire.Record(wire.A, bytes(4), 30)] * count
    message = wire.padded(wire.answer(question, records=records, extended=wire.Extended(15, text)), block)
    assert len(message) % block == 0
    parsed = dnslib.DNSRecord.parse(message)
    codes = [option.code for option in parsed.ar[0].rdata]
    assert codes == [15, 12] or (codes == [15] and message.endswith(b"\x00\x0c\x00\x00"))  # dnslib skips an empty one
    query = wire.read_question(wire.padded(wire.build_query(1, wired(labels), wire.A), 128))
    assert isinstance(query, wire.Question) and query.padded


def test_without_opt_there_is_no_room_for_padding() -> None:
    message = wire.answer(asked(edns=False), records=[wire.Record(wire.A, bytes(4), 30)])
    assert wire.padded(message, 128) == message
    full = wire.answer(asked(), records=[wire.Record(wire.TXT, bytes(65_400), 30)])
    assert len(full) > 65_400 and len(wire.padded(full, 468)) <= wire.TCP_MAX


@pytest.mark.parametrize("payload", [0, 511, 512, 1000, 1232, 65535])
@pytest.mark.parametrize("dnssec_ok", [False, True])
def test_a_bare_opt_is_read_as_any_other(payload: int, dnssec_ok: bool) -> None:
    message = bytearray(wire.build_query(7, wire.name_wire("a.example"), wire.A, dnssec_ok=dnssec_ok))
    message[-8:-6] = payload.to_bytes(2, "big")
    with_option = bytes(message[:-2]) + b"\x00\x04\xff\xff\x00\x00"  # one that nobody knows
    assert wire.read_question(bytes(message)) == wire.read_question(with_option)
    message[-5] = 1  # another version
    assert isinstance(wire.read_question(bytes(message)), wire.Unreadable)


def test_an_ending_is_good_for_every_name() -> None:
    def asked(ident: int, name: str) -> wire.Question:
        question = wire.read_question(wire.build_query(ident, wire.name_wire(name), wire.A, flags=wire.RD | wire.CD))
        assert isinstance(question, wire.Question)
        return question

    def answered(question: wire.Question) -> bytes:
        extended = wire.Extended(wire.EDE_BLOCKED, "rule ads")
        return wire.answer(question, wire.NXDOMAIN, authority=[wire.soa(wire.QUESTION_NAME, 60)], extended=extended)

    one, other = asked(7, "x.ads.example"), asked(8, "another.much.longer.example")
    made = wire.answer_with(other, wire.ending_of(answered(one), one))
    assert made == answered(other)
    (soa,) = dnslib.DNSRecord.parse(made).auth
    assert str(soa.rname) == "another.much.longer.example." == str(soa.rdata.mname)
