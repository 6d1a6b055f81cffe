"""Whole answers by whole queries: the same as the chain would say, for as long as it would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dnslib import DNSRecord

from tests.loopback.dnsfilter.upstream import FakeUpstream, address
from warren.dnsfilter.core import packets
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream
from warren.dnsfilter.core.policy import CompiledPolicy, Policy, PolicyRule
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.core.verdict import Client, Kind, Resolved
from warren.dnsfilter.resolver import Resolver
from warren.fabric.core import dnswire as wire
from warren.fabric.core.selectors import When, Who

KID, ADULT = Client(groups=frozenset({"kids"})), Client()
POLICY = Policy(
    rules=(
        PolicyRule("kids", "block", who=Who(groups=("kids",)), names=("*.games.example",)),
        PolicyRule("night", "block", when=When(start="22:00", end="23:00"), names=("tv.example",)),
        PolicyRule("never", "block", names=("never.example",)),
    )
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def filtering(policy: Policy) -> Filter:
    return Filter(Builder().finish(), CompiledPolicy(policy))


def run(case: Callable[[Resolver, Clock, set[bytes], FakeUpstream], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), FakeUpstream(lambda q, _: address(q, ttl=300)) as upstream:
            clock, routed = Clock(), set[bytes]()
            config = ResolverConfig(groups={"default": Group((Upstream("127.0.0.1", upstream.port),))})
            resolver = Resolver(
                config,
                lambda name, _: "r1" if name in routed else None,
                clock,
                filter=filtering(POLICY),
                wall=lambda: clock.now + 21 * 3600 + 59 * 60 - 1000,  # 21:59:00 at first
            )
            try:
                await case(resolver, clock, routed, upstream)
            finally:
                await resolver.close()

    asyncio.run(whole())


def ask(resolver: Resolver, name: str, client: Client = ADULT, ident: int = 1) -> Resolved:
    decided = resolver.decide(wire.build_query(ident, wire.name_wire(name), wire.A), client)
    assert isinstance(decided, Resolved)
    return decided


def test_ids_and_lives_are_each_asker_s_own() -> None:
    async def case(resolver: Resolver, clock: Clock, routed: set[bytes], upstream: FakeUpstream) -> None:
        await resolver.resolve(wire.build_query(9, wire.name_wire("a.example"), wire.A), ADULT)
        for passed, ident in ((0, 1), (10, 2), (5, 3), (100, 4)):
            clock.now += passed
            message = DNSRecord.parse(ask(resolver, "a.example", ident=ident).message)
            assert (message.header.id, message.rr[0].ttl) == (ident, 300 - int(clock.now - 1000))
        clock.now += 200
        decided = resolver.decide(wire.build_query(9, wire.name_wire("a.example"), wire.A), ADULT)
        assert not isinstance(decided, Resolved)  # it has ended

    run(case)


def test_no_client_gets_what_another_one_got() -> None:
    async def case(resolver: Resolver, clock: Clock, routed: set[bytes], upstream: FakeUpstream) -> None:
        await resolver.resolve(wire.build_query(9, wire.name_wire("x.games.example"), wire.A), ADULT)
        for _ in range(3):
            assert ask(resolver, "x.games.example", ADULT).verdict.kind is Kind.CACHED
            assert ask(resolver, "x.games.example", KID).verdict.kind is Kind.BLOCKED

    run(case)


def test_a_new_filter_and_a_new_hour_hold_at_once() -> None:
    async def case(resolver: Resolver, clock: Clock, routed: set[bytes], upstream: FakeUpstream) -> None:
        await resolver.resolve(wire.build_query(9, wire.name_wire("tv.example"), wire.A), ADULT)
        clock.now += 59.9
        assert ask(resolver, "tv.example").verdict.kind is Kind.CACHED
        clock.now += 0.2
        assert ask(resolver, "tv.example").verdict.kind is Kind.BLOCKED  # it is 22:00
        for _ in range(2):
            assert ask(resolver, "never.example").verdict.kind is Kind.BLOCKED
        resolver.slot.current = filtering(Policy())
        decided = resolver.decide(wire.build_query(1, wire.name_wire("never.example"), wire.A), ADULT)
        assert not isinstance(decided, Resolved)

    run(case)


def test_a_new_hostname_route_holds_at_once() -> None:
    async def case(resolver: Resolver, clock: Clock, routed: set[bytes], upstream: FakeUpstream) -> None:
        for _ in range(2):
            assert ask(resolver, "payroll.internal").verdict.kind is Kind.LOCAL
        routed.add(wire.name_wire("payroll.internal"))
        assert ask(resolver, "payroll.internal").verdict.kind is Kind.HOST_ROUTE

    run(case)


def test_the_table_is_bounded() -> None:
    async def case(resolver: Resolver, clock: Clock, routed: set[bytes], upstream: FakeUpstream) -> None:
        for number in range(packets.PACKETS_MAX + 10):
            ask(resolver, f"n{number}.internal")
        assert len(resolver._packets) <= packets.PACKETS_MAX
        resolver.decide(wire.build_query(1, wire.name_wire("a.internal"), wire.A) + bytes(3000), ADULT)

    run(case)
