"""The cache: lives, bounds, what is kept and what is not."""

from __future__ import annotations

from dnslib import QTYPE, RR, SOA, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from warren.dnsfilter.core.cache import Cache, Key, key_of
from warren.dnsfilter.core.config import CacheConfig
from warren.fabric.core import dnsreply, dnswire


def reply(
    name: str, ttl: int = 60, rcode: int = 0, negative_ttl: int | None = None, tc: int = 0, count: int = 1
) -> dnsreply.Reply:
    message = DNSRecord(DNSHeader(qr=1, rcode=rcode, tc=tc), q=DNSQuestion(name))
    if rcode == 0 and negative_ttl is None:
        for number in range(count):
            message.add_answer(RR(name, rdata=A(f"192.0.{number >> 8}.{number & 255}"), ttl=ttl))
    if negative_ttl is not None:
        message.add_auth(RR("example", QTYPE.SOA, rdata=SOA("n.x", "h.x", (1, 2, 3, 4, negative_ttl)), ttl=99_999))
    found = dnsreply.read_reply(bytes(message.pack()))
    assert found is not None
    return found


def key(name: str) -> Key:
    return dnswire.name_wire(name), dnswire.A, 0, "default"


def test_lives_and_ends() -> None:
    cache = Cache(CacheConfig(stale_for=100))
    cache.put(key("a.x"), reply("a.x", 60), "u", 1000.0)
    assert cache.fresh(key("a.x"), 1059.9) is not None
    assert cache.fresh(key("a.x"), 1060.0) is None
    assert cache.stale(key("a.x"), 1159.9) is not None
    assert cache.stale(key("a.x"), 1160.0) is None and len(cache) == 0 and cache.bytes == 0


def test_what_is_not_kept() -> None:
    cache = Cache(CacheConfig())
    for number, said in enumerate(
        [
            reply("a.x", rcode=dnswire.SERVFAIL),
            reply("a.x", rcode=dnswire.REFUSED),
            reply("a.x", rcode=dnswire.NXDOMAIN),  # without an SOA (RFC 2308, section 5)
            reply("a.x", tc=1),
            reply("a.x", ttl=0),
            reply("a.x", count=1100),  # larger than an entry may be
        ]
    ):
        assert cache.put(key(f"a{number}.x"), said, "u", 0.0) is None
    assert len(cache) == 0 and cache.bytes == 0


def test_negative_answers_for_a_while() -> None:
    cache = Cache(CacheConfig(max_negative_ttl=900))
    assert _life(cache, reply("a.x", rcode=dnswire.NXDOMAIN, negative_ttl=50)) == 50
    assert _life(cache, reply("a.x", rcode=dnswire.NXDOMAIN, negative_ttl=5000)) == 900
    assert _life(cache, reply("a.x", negative_ttl=70)) == 70  # no data
    assert _life(cache, reply("a.x", ttl=1_000_000)) == 86_400


def _life(cache: Cache, said: dnsreply.Reply) -> float:
    entry = cache.put(key("a.x"), said, "u", 0.0)
    assert entry is not None
    return entry.ends


def test_what_makes_two_questions_the_same() -> None:
    def asked(name: str, do: bool = False, flags: int = dnswire.RD) -> Key:
        found = dnswire.read_question(dnswire.build_query(1, dnswire.name_wire(name), 1, dnssec_ok=do, flags=flags))
        assert isinstance(found, dnswire.Question)
        return key_of(found, "default")

    assert asked("A.x") == asked("a.X")
    assert len({asked("a.x"), asked("a.x", do=True), asked("a.x", flags=dnswire.RD | dnswire.CD)}) == 3


def test_what_is_asked_for_stays_when_bytes_run_out() -> None:
    cache = Cache(CacheConfig(max_bytes=100_000))
    cache.put(key("popular.x"), reply("popular.x"), "u", 0.0)
    for number in range(1000):
        cache.fresh(key("popular.x"), 1.0)
        cache.put(key(f"random{number}.x"), reply(f"random{number}.x"), "u", 1.0)
    assert cache.fresh(key("popular.x"), 2.0) is not None
    assert cache.bytes <= 100_000 and cache.evicted > 800


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40), st.booleans()), max_size=200))
def test_the_bytes_are_counted_right(steps: list[tuple[int, int, bool]]) -> None:
    cache = Cache(CacheConfig(max_bytes=10_000, stale_for=5))
    for now, (name, ttl, look) in enumerate(steps):
        if look:
            cache.fresh(key(f"n{name}.x"), now)
            cache.stale(key(f"n{name}.x"), now)
        else:
            cache.put(key(f"n{name}.x"), reply(f"n{name}.x", ttl), "u", now)
        assert cache.bytes == sum(entry.size for entry in cache._entries.values()) <= 10_000
    cache.clear()
    assert cache.bytes == 0 and len(cache) == 0


def test_prefetch_is_for_what_is_often_asked() -> None:
    cache = Cache(CacheConfig())
    entry = cache.put(key("a.x"), reply("a.x", 100), "u", 0.0)
    assert entry is not None
    cache.fresh(key("a.x"), 1.0)
    assert not entry.wants_prefetch(95.0)
    cache.fresh(key("a.x"), 2.0)
    assert not entry.wants_prefetch(50.0) and entry.wants_prefetch(95.0) and not entry.wants_prefetch(96.0)
