"""Cookies of RFC 9018, with the vectors of its appendix A."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.dnsfilter.core import cookies
from warren.dnsfilter.core.cookies import Jar, siphash24
from warren.fabric.core import dnswire as wire

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
CLIENT, ADDRESS, AT = bytes.fromhex("2464c4abcf10c957"), "198.51.100.100", 1559731985


def test_the_cookie_of_the_standard() -> None:
    cookie = Jar(SECRET).bake(CLIENT, ADDRESS, AT)
    assert cookie.hex() == "2464c4abcf10c957010000005cf79f111f8130c3eee29480"


def test_the_hash_of_its_authors() -> None:
    assert siphash24(bytes(range(16)), bytes(range(15))) == (0xA129CA6149BE45E5).to_bytes(8, "little")


def test_whose_it_is_and_for_how_long() -> None:
    jar = Jar(SECRET)
    cookie = jar.bake(CLIENT, ADDRESS, AT)
    assert jar.valid(cookie, ADDRESS, AT + cookies.LIFE_S) and not jar.valid(cookie, ADDRESS, AT + cookies.LIFE_S + 1)
    assert jar.valid(cookie, ADDRESS, AT - cookies.AHEAD_S) and not jar.valid(cookie, ADDRESS, AT - cookies.AHEAD_S - 1)
    assert not jar.valid(cookie, "198.51.100.101", AT) and not Jar(bytes(16)).valid(cookie, ADDRESS, AT)
    assert not jar.valid(cookie[:8], ADDRESS, AT)
    assert jar.bake(CLIENT, ADDRESS, AT + 10) == cookie  # kept for a while
    assert jar.bake(CLIENT, ADDRESS, AT + cookies.KEPT_S) != cookie


@given(st.binary(max_size=48))
def test_what_is_shown_is_judged_whatever_it_is(cookie: bytes) -> None:
    assert not Jar(SECRET).valid(cookie, ADDRESS, AT)


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cookies, "KEPT_MAX", 3)
    jar = Jar(SECRET)
    for number in range(10):
        jar.bake(bytes((number,)) * 8, ADDRESS, AT)
    assert len(jar._kept) <= 3


@pytest.mark.parametrize(
    ("length", "understood"), [(0, False), (7, False), (8, True), (9, False), (24, True), (41, False)]
)
def test_lengths_in_a_query(length: int, understood: bool) -> None:
    query = wire.with_option(
        wire.build_query(1, wire.name_wire("a.example"), wire.A), wire.OPTION_COOKIE, b"c" * length
    )
    question = wire.read_question(query)
    if understood:
        assert isinstance(question, wire.Question) and question.cookie == b"c" * length
        assert wire.limit_for(question, "udp") == wire.UDP_MAX - 28
    else:
        assert isinstance(question, wire.Unreadable) and question.answer[3] & 15 == wire.FORMERR
