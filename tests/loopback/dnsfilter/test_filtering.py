"""Policy and lists in front of an upstream on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from dnslib import CNAME, QTYPE, RR, A, DNSRecord

from tests.loopback.dnsfilter.upstream import FakeUpstream, address
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream, Zone
from warren.dnsfilter.core.lists import ListParser
from warren.dnsfilter.core.policy import CompiledPolicy, ListInfo, Override, Policy, PolicyRule
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.core.verdict import Client, Kind, Resolved
from warren.dnsfilter.resolver import Resolver
from warren.fabric.core import dnswire as wire
from warren.fabric.core.selectors import Who

KID, ADULT = Client(groups=frozenset({"kids"})), Client(device="desk")
LIST = """
||ads.example^
||dictated.example^$dnsrewrite=10.9.9.9
||moved.example^$dnsrewrite=target.example
||nodata.example^$dnstype=A,dnsrewrite=NOERROR;;
"""
ZONE = """$ORIGIN rpz.
drop.example CNAME rpz-drop.
tcp.example CNAME rpz-tcp-only.
24.0.113.0.203.rpz-ip CNAME .
"""


def filtering(policy: Policy, groups: tuple[str, ...] = ("default", "family")) -> Filter:
    builder = Builder()
    infos = [ListInfo("ads", categories=("ads",)), ListInfo("zone", categories=("zone",))]
    for info, text in zip(infos, (LIST, ZONE), strict=True):
        parser = ListParser(builder, info.name)
        parser.feed(text.encode())
        parser.end()
    return Filter(builder.finish(), CompiledPolicy(policy, infos, groups))


POLICY = Policy(
    rules=(
        PolicyRule("work", "allow", names=("ok.ads.example",)),
        PolicyRule("kids-answers", "block", who=Who(groups=("kids",)), names=("*.games.example",), answer="zero"),
        PolicyRule("refused", "block", names=("refused.example",), answer="refused"),
        PolicyRule("own", "override", names=("own.example",), override=Override(addresses=("10.0.0.5", "fd00::5"))),
        PolicyRule("alias", "override", names=("alias.example",), override=Override(cname="target.example")),
        PolicyRule(
            "family",
            "resolver",
            who=Who(groups=("kids",)),
            names=("*.search.example", "*.corp.example"),
            resolver="family",
        ),
        PolicyRule("safe", "safe-search", who=Who(groups=("kids",))),
        PolicyRule("lists", "block", categories=("ads", "zone")),
    ),
    rebinding_except=("*.plex.example",),
)


def answering(q: DNSRecord, _: str) -> bytes:
    name = str(q.q.qname).lower()
    reply = q.reply()
    if name.startswith("cloaked."):
        reply.add_answer(RR(q.q.qname, QTYPE.CNAME, rdata=CNAME("x.ads.example"), ttl=60))
        reply.add_answer(RR("x.ads.example", rdata=A("192.0.2.1"), ttl=60))
        return bytes(reply.pack())
    if name.startswith("inside."):
        return address(q, "192.168.0.1")
    if name.startswith("listed-address."):
        return address(q, "203.0.113.7")
    return address(q, "192.0.2.2" if "target" in name else "192.0.2.1")


@asynccontextmanager
async def resolving() -> AsyncIterator[tuple[Resolver, FakeUpstream, FakeUpstream]]:
    async with FakeUpstream(answering) as public, FakeUpstream(lambda q, _: address(q, "192.0.2.9")) as family:
        groups = {
            "default": Group((Upstream("127.0.0.1", public.port),)),
            "family": Group((Upstream("127.0.0.1", family.port),)),
        }
        zones = (Zone("corp.example"),)
        resolver = Resolver(ResolverConfig(groups=groups, zones=zones), filter=filtering(POLICY))
        try:
            yield resolver, public, family
        finally:
            await resolver.close()


def run(case: Callable[[Resolver, FakeUpstream, FakeUpstream], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), resolving() as (resolver, public, family):
            await case(resolver, public, family)

    asyncio.run(whole())


async def ask(
    resolver: Resolver, name: str, client: Client = ADULT, kind: int = wire.A, transport: str = "udp"
) -> Resolved:
    return await resolver.resolve(wire.build_query(9, wire.name_wire(name), kind), client, transport)


def addresses(resolved: Resolved) -> list[str]:
    return [str(rr.rdata) for rr in DNSRecord.parse(resolved.message).rr]


def words(resolved: Resolved) -> str:
    return str(DNSRecord.parse(resolved.message).ar[0].rdata[0].data[2:], "utf-8")


def test_blocked_says_why_and_asks_nobody() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        blocked = await ask(resolver, "x.ads.example")
        assert blocked.verdict.kind is Kind.BLOCKED
        assert (blocked.verdict.rule, blocked.verdict.list) == ("lists", "ads")
        assert DNSRecord.parse(blocked.message).header.rcode == wire.NXDOMAIN
        assert words(blocked) == "rule lists, list ads"
        allowed = await ask(resolver, "ok.ads.example")
        assert (allowed.verdict.kind, allowed.verdict.rule) == (Kind.FORWARDED, "work")
        assert [name for _, name in public.asked] and len(public.asked) == 1 and not family.asked

    run(case)


def test_each_client_by_its_own_rules() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        assert addresses(await ask(resolver, "x.games.example", KID)) == ["0.0.0.0"]
        assert addresses(await ask(resolver, "x.games.example", KID, wire.AAAA)) == ["::"]
        assert addresses(await ask(resolver, "x.games.example", KID, wire.HTTPS)) == []
        assert addresses(await ask(resolver, "x.games.example")) == ["192.0.2.1"]
        assert addresses(await ask(resolver, "x.games.example", KID)) == ["0.0.0.0"]  # though it is in the cache now
        refused = await ask(resolver, "refused.example")
        assert DNSRecord.parse(refused.message).header.rcode == wire.REFUSED

    run(case)


def test_overrides() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        assert addresses(await ask(resolver, "own.example")) == ["10.0.0.5"]
        assert addresses(await ask(resolver, "own.example", kind=wire.AAAA)) == ["fd00::5"]
        for name in ("alias.example", "moved.example"):
            assert addresses(await ask(resolver, name)) == ["target.example.", "192.0.2.2"]
        assert len(public.asked) == 1  # the target was in the cache for the second
        assert addresses(await ask(resolver, "dictated.example")) == ["10.9.9.9"]
        assert addresses(await ask(resolver, "dictated.example", kind=wire.AAAA)) == []
        nodata = await ask(resolver, "nodata.example")
        assert DNSRecord.parse(nodata.message).header.rcode == 0 and addresses(nodata) == []

    run(case)


def test_safe_search_for_whom_it_is_meant() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        kid = await ask(resolver, "www.google.com", KID)
        assert addresses(kid)[0] == "forcesafesearch.google.com." and kid.verdict.rule == "safe"
        assert addresses(await ask(resolver, "www.google.com")) == ["192.0.2.1"]

    run(case)


def test_the_policy_chooses_upstreams_but_never_for_private_names() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        assert addresses(await ask(resolver, "x.search.example", KID)) == ["192.0.2.9"]
        assert addresses(await ask(resolver, "x.search.example")) == ["192.0.2.1"]  # each group has its own cache
        private = await ask(resolver, "x.corp.example", KID)
        assert private.verdict.kind is Kind.LOCAL and len(family.asked) == 1

    run(case)


def test_cloaking_is_seen_through() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        for _ in range(2):  # fresh, and from the cache
            cloaked = await ask(resolver, "cloaked.example")
            assert cloaked.verdict.kind is Kind.BLOCKED and "leads to x.ads.example" in words(cloaked)
        assert len(public.asked) == 1
        resolver.slot.current = filtering(Policy())
        assert (await ask(resolver, "cloaked.example")).verdict.kind is Kind.CACHED

    run(case)


def test_public_names_at_private_addresses() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        for _ in range(2):
            rebound = await ask(resolver, "inside.example")
            assert (rebound.verdict.kind, rebound.verdict.stage) == (Kind.BLOCKED, "rebinding")
            assert addresses(rebound) == []
        assert addresses(await ask(resolver, "inside.plex.example")) == ["192.168.0.1"]
        resolver.slot.current = filtering(Policy(rebinding=False))
        assert addresses(await ask(resolver, "inside.example")) == ["192.168.0.1"]

    run(case)


def test_addresses_on_lists() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        for _ in range(2):
            listed = await ask(resolver, "listed-address.example")
            assert (listed.verdict.kind, listed.verdict.list) == (Kind.BLOCKED, "zone")

    run(case)


def test_zone_actions() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        assert (await ask(resolver, "drop.example")).message == b""
        cut = DNSRecord.parse((await ask(resolver, "tcp.example")).message)
        assert cut.header.tc == 1 and not cut.rr
        assert addresses(await ask(resolver, "tcp.example", transport="tcp")) == ["192.0.2.1"]

    run(case)


def test_a_new_filter_holds_from_the_next_query_on() -> None:
    async def case(resolver: Resolver, public: FakeUpstream, family: FakeUpstream) -> None:
        assert (await ask(resolver, "x.example")).verdict.kind is Kind.FORWARDED
        resolver.slot.current = filtering(Policy(rules=(PolicyRule("all", "block"),)))
        assert (await ask(resolver, "x.example")).verdict.kind is Kind.BLOCKED

    run(case)
