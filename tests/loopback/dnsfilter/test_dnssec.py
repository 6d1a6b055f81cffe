"""libunbound in front of an upstream that signs nothing: below a trust anchor that is bogus, elsewhere it is insecure.

What is signed, expired and forged is in tests/apps/test_dns.py, with real servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from dnslib import QTYPE, DNSRecord

from tests.loopback.dnsfilter.upstream import FakeUpstream, address
from warren.dnsfilter import validator
from warren.dnsfilter.core.config import Dnssec, Group, ResolverConfig, Upstream, Zone
from warren.dnsfilter.core.verdict import Client, Kind, Resolved
from warren.dnsfilter.dnssec import Validation
from warren.dnsfilter.resolver import Resolver
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError

ANCHOR = "secure.example. IN DS 54931 13 2 619FC7142AA02CB84D00299D8DAFC6D813E41054D46AF1A52B197F1EF48574DD\n"
needs_library = pytest.mark.skipif(not validator.available(), reason="needs libunbound8")
TLS = Upstream("192.0.2.1", 853, "dns.example")
PLAIN = Upstream("192.0.2.2")


def answering(q: DNSRecord, _: str) -> bytes:
    return address(q) if q.q.qtype == QTYPE.A else bytes(q.reply().pack())


def run(tmp: Path, case: Callable[[Resolver, FakeUpstream], Awaitable[None]], mode: str = "libunbound") -> None:
    (tmp / "anchor").write_text(ANCHOR)

    async def whole() -> None:
        async with asyncio.timeout(30), FakeUpstream(answering) as upstream:
            group = Group((Upstream("127.0.0.1", upstream.port),))
            dnssec = Dnssec(mode, (str(tmp / "anchor"),), ("open.secure.example",))  # type: ignore[arg-type]
            config = ResolverConfig(
                {"default": group, "corp": group}, (Zone("corp.secure.example", "corp"),), dnssec=dnssec
            )
            resolver = Resolver(config)
            try:
                await case(resolver, upstream)
            finally:
                await resolver.close()

    asyncio.run(whole())


async def ask(resolver: Resolver, name: str, flags: int = wire.RD) -> Resolved:
    return await resolver.resolve(wire.build_query(7, wire.name_wire(name), wire.A, flags=flags), Client())


@needs_library
@pytest.mark.parametrize("mode", ["libunbound", "auto"])
def test_unsigned_below_an_anchor_is_bogus_and_elsewhere_insecure(tmp_path: Path, mode: str) -> None:
    async def case(resolver: Resolver, upstream: FakeUpstream) -> None:
        bogus = await ask(resolver, "www.secure.example")
        message = DNSRecord.parse(bogus.message)
        assert message.header.rcode == wire.SERVFAIL and not message.rr
        (error,) = message.ar[0].rdata
        assert int.from_bytes(error.data[:2], "big") == wire.EDE_BOGUS and b"secure.example" in error.data
        insecure = await ask(resolver, "www.other.example", wire.RD | wire.AD)
        assert insecure.verdict.kind is Kind.FORWARDED and not insecure.message[3] & wire.AD
        assert insecure.verdict.upstream == "libunbound"
        again = await ask(resolver, "www.other.example")
        assert again.verdict.kind is Kind.CACHED

    run(tmp_path, case, mode)


@needs_library
def test_private_and_excepted_zones_and_cd_are_not_validated(tmp_path: Path) -> None:
    async def case(resolver: Resolver, upstream: FakeUpstream) -> None:
        for name in ("x.corp.secure.example", "x.open.secure.example"):
            assert (await ask(resolver, name)).verdict.kind is Kind.FORWARDED, name
        checked_by_the_asker = await ask(resolver, "www.secure.example", wire.RD | wire.CD)
        assert checked_by_the_asker.verdict.kind is Kind.FORWARDED

    run(tmp_path, case)


@needs_library
def test_who_gives_up_and_who_closes_leave_nothing(tmp_path: Path) -> None:
    async def case(resolver: Resolver, upstream: FakeUpstream) -> None:
        heard = asyncio.Event()

        def silent(_q: DNSRecord, _: str) -> None:
            heard.set()

        upstream.answering = silent
        tasks = [asyncio.create_task(ask(resolver, f"n{n}.other.example")) for n in range(20)]
        await heard.wait()
        for task in tasks[:10]:
            task.cancel()
        await asyncio.gather(*tasks[:10], return_exceptions=True)
        await resolver.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(tmp_path, case)


@needs_library
@pytest.mark.parametrize(
    ("group", "anchors", "said"),
    [
        (Group((TLS, PLAIN)), (), "all in the clear or all over tls://"),
        (Group((Upstream("192.0.2.1", 443, "dns.example", "/dns-query"),)), (), "mode upstream"),
        (Group((PLAIN,)), ("/nosuch",), "/nosuch: no file with trust anchors"),
    ],
)
def test_what_the_library_can_t_do_is_one_line(group: Group, anchors: tuple[str, ...], said: str) -> None:
    config = ResolverConfig({"default": group}, dnssec=Dnssec("libunbound", anchors or ("/dev/null",)))
    with pytest.raises(ConfigError, match=f"^dnssec: [^\n]*{said}"):
        Validation.of(config)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validator, "_library", lambda: None)
    with pytest.raises(ConfigError, match="install libunbound8"):
        Validation.of(ResolverConfig({"default": Group((PLAIN,))}, dnssec=Dnssec("libunbound", ("/dev/null",))))
    auto = Validation.of(ResolverConfig({"default": Group((TLS,))}, dnssec=Dnssec("auto")))
    assert auto.believes("default") and not auto.covers("default", checking_disabled=False)
    assert not Validation.of(ResolverConfig({"default": Group((PLAIN,))}, dnssec=Dnssec("auto"))).believes("default")


def test_only_groups_that_can_be_believed_are() -> None:
    config = ResolverConfig({"default": Group((TLS,)), "family": Group((PLAIN,))}, dnssec=Dnssec("upstream"))
    validation = Validation.of(config)
    assert validation.believes("default") and not validation.believes("family")
