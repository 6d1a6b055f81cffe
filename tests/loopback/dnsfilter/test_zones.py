"""Response policy zones: every action behind every trigger, in front of an upstream on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from dnslib import DNSRecord

from tests.loopback.dnsfilter.upstream import FakeUpstream, address
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream
from warren.dnsfilter.core.lists import ListParser
from warren.dnsfilter.core.policy import CompiledPolicy, ListInfo, Policy, PolicyRule
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.core.verdict import Client, Kind, Resolved
from warren.dnsfilter.resolver import Resolver
from warren.fabric.core import dnswire as wire

ACTIONS = {
    "nxdomain": "CNAME .",
    "nodata": "CNAME *.",
    "drop": "CNAME rpz-drop.",
    "tcp": "CNAME rpz-tcp-only.",
    "data": "A 192.0.2.99",
    "moved": "CNAME target.example.net.",
    "garden": "CNAME *.garden.example.net.",
}
BY_NAME, BY_ANSWER, BY_CLIENT = {}, {}, {}
for number, name in enumerate(ACTIONS, 1):
    BY_NAME[name] = f"{name}.by-name.example"
    BY_ANSWER[name] = (f"{name}.by-answer.example", f"203.0.113.{number}")
    BY_CLIENT[name] = f"10.1.0.{number}"
ZONE = "$ORIGIN rpz.\n" + "".join(
    f"{BY_NAME[name]} {action}\n"
    f"*.{BY_NAME[name]} {action}\n"
    f"32.{'.'.join(reversed(BY_ANSWER[name][1].split('.')))}.rpz-ip {action}\n"
    f"32.{'.'.join(reversed(BY_CLIENT[name].split('.')))}.rpz-client-ip {action}\n"
    for name, action in ACTIONS.items()
)
ZONE += "24.0.113.0.203.rpz-ip CNAME .\n24.0.0.1.10.rpz-client-ip CNAME .\n"
ZONE += "32.9.0.1.10.rpz-client-ip CNAME rpz-passthru.\n32.77.113.0.203.rpz-ip CNAME rpz-passthru.\n"
NOBODY = Client(address="192.0.2.200")


def answering(q: DNSRecord, _: str) -> bytes:
    name = str(q.q.qname).lower().rstrip(".")
    found = {question: ip for question, ip in BY_ANSWER.values()}
    return address(q, {**found, "spared.example": "203.0.113.77"}.get(name, "192.0.2.1"))


def run(case: Callable[[Resolver, FakeUpstream], Awaitable[None]]) -> None:
    async def whole() -> None:
        builder, info = Builder(), ListInfo("zone", categories=("zone",))
        parser = ListParser(builder, info.name, "block", "rpz")
        parser.feed(ZONE.encode())
        assert parser.end().errors == []
        policy = Policy(rules=(PolicyRule("zone", "block", categories=("zone",)),))
        async with asyncio.timeout(30), FakeUpstream(answering) as upstream:
            config = ResolverConfig(groups={"default": Group((Upstream("127.0.0.1", upstream.port),))})
            resolver = Resolver(config, filter=Filter(builder.finish(), CompiledPolicy(policy, [info], ["default"])))
            try:
                await case(resolver, upstream)
            finally:
                await resolver.close()

    asyncio.run(whole())


async def ask(resolver: Resolver, name: str, client: Client = NOBODY, transport: str = "udp") -> Resolved:
    return await resolver.resolve(wire.build_query(7, wire.name_wire(name), wire.A), client, transport)


async def check(resolver: Resolver, upstream: FakeUpstream, action: str, name: str, client: Client) -> None:
    resolved = await ask(resolver, name, client)
    if action == "drop":
        assert resolved.message == b""
        return
    message = DNSRecord.parse(resolved.message)
    records = [str(record.rdata).rstrip(".") for record in message.rr]
    if action == "nxdomain":
        assert message.header.rcode == wire.NXDOMAIN and resolved.verdict.kind is Kind.BLOCKED
    elif action == "nodata":
        assert message.header.rcode == wire.NOERROR and not records
    elif action == "tcp":
        assert message.header.tc and not records
        over_tcp = await ask(resolver, name, client, "tcp")
        assert over_tcp.verdict.kind in (Kind.FORWARDED, Kind.CACHED) and DNSRecord.parse(over_tcp.message).rr
    elif action == "data":
        assert records == ["192.0.2.99"]
    else:
        alias = "target.example.net" if action == "moved" else f"{name}.garden.example.net"
        assert records == [alias, "192.0.2.1"] and resolved.verdict.kind is Kind.OVERRIDDEN
        assert alias in [asked.lower().rstrip(".") for _, asked in upstream.asked]


@pytest.mark.parametrize("action", list(ACTIONS))
def test_by_name(action: str) -> None:
    async def case(resolver: Resolver, upstream: FakeUpstream) -> None:
        for name in (BY_NAME[action], f"below.{BY_NAME[action]}"):
            await check(resolver, upstream, action, name, NOBODY)

    run(case)


@pytest.mark.parametrize("action", list(ACTIONS))
def test_by_an_address_in_the_answer_fresh_and_kept(action: str) -> None:
    async def case(resolver: Resolver, upstream: FakeUpstream) -> None:
        for _ in range(3):
            await check(resolver, upstream, action, BY_ANSWER[action][0], NOBODY)

    run(case)


@pytest.mark.parametrize("action", list(ACTIONS))
def test_by_the_client_s_address(action: str) -> None:
    async def case(resolver: Resolver, upstream: FakeUpstream) -> None:
        client = Client(address=BY_CLIENT[action])
        for name in ("www.example", BY_NAME["nodata"]):  # before any name of the zone
            await check(resolver, upstream, action, name, client)
        assert (await ask(resolver, "www.example")).verdict.kind in (Kind.FORWARDED, Kind.CACHED)

    run(case)


def test_the_longest_prefix_and_passthru() -> None:
    async def case(resolver: Resolver, upstream: FakeUpstream) -> None:
        spared = await ask(resolver, "spared.example")
        assert spared.verdict.kind is Kind.FORWARDED
        assert (await ask(resolver, "www.example", Client(address="10.1.0.200"))).verdict.kind is Kind.BLOCKED
        free = Client(address="10.1.0.9")
        assert (await ask(resolver, "www.example", free)).verdict.kind is Kind.FORWARDED
        assert (await ask(resolver, BY_NAME["nxdomain"], free)).verdict.kind is Kind.FORWARDED

    run(case)


def test_a_garden_too_deep_is_no_name() -> None:
    async def case(resolver: Resolver, upstream: FakeUpstream) -> None:
        labels = ".".join("x" * 54 for _ in range(4))
        resolved = await ask(resolver, f"{labels}.{BY_NAME['garden']}")
        assert DNSRecord.parse(resolved.message).header.rcode == wire.NXDOMAIN

    run(case)
