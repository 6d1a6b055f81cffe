"""Requests over HTTPS as queries, without any HTTP."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.dnsfilter.core import doh
from warren.fabric.core import dnsreply
from warren.fabric.core import dnswire as wire


@given(st.dictionaries(st.sampled_from([":path", ":method", "content-type"]), st.text()), st.binary())
def test_whatever_comes_is_a_query_or_a_status(fields: dict[str, str], body: bytes) -> None:
    said = doh.query_of(fields, body)
    assert isinstance(said, bytes) or 400 <= said.status < 500


@given(st.text(max_size=300))
def test_the_parameter_is_total(value: str) -> None:
    said = doh.query_of({":method": "GET", ":path": f"{doh.PATH}?dns={value}"}, b"")
    assert isinstance(said, bytes) or said.status in (400, 414)


def test_the_example_of_the_standard() -> None:
    path = "/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB"  # RFC 8484, section 4.1.1
    said = doh.query_of({":method": "GET", ":path": path}, b"")
    assert isinstance(said, bytes)
    question = wire.read_question(said)
    assert isinstance(question, wire.Question) and question.text == "www.example.com"


def test_freshness_is_the_smallest_ttl() -> None:
    question = wire.read_question(wire.build_query(1, wire.name_wire("a.example"), wire.A))
    assert isinstance(question, wire.Question)
    records = [wire.Record(wire.A, bytes(4), ttl) for ttl in (300, 20, 60)]
    assert doh.freshness(wire.answer(question, records=records)) == 20
    negative = wire.answer(question, wire.NXDOMAIN, authority=[wire.soa(b"\x00", 7)])
    assert doh.freshness(negative) == 7
    assert doh.freshness(wire.answer(question, wire.SERVFAIL)) == 0 and doh.freshness(b"") == 0
    assert dnsreply.read_reply(negative) is not None
