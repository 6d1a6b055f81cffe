"""Which queries are answered by the resolver, and which are hostname routes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.edge.judge.test_decide import DEVICE, OTHER, SNAPSHOT
from warren.dnsfilter.core.config import ResolverConfig
from warren.dnsfilter.settings import LimitSettings
from warren.edge.judge.resolver import JudgeResolver
from warren.edge.store.records import Route
from warren.edge.store.snapshot import build
from warren.fabric.core import dnswire
from warren.fabric.core.messages.session import Answer, HostRoute

pytestmark = pytest.mark.anyio


async def said(name: bytes, vnet: str = "default", kind: int = dnswire.A) -> Answer | HostRoute:
    resolver = JudgeResolver(ResolverConfig(), lambda: SNAPSHOT)
    try:
        return await resolver.answer(replace(DEVICE, vnet=vnet), dnswire.build_query(7, name, kind), "udp")
    finally:
        await resolver.close()


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("payroll.internal", "payroll0"),
        ("a.corp.internal", "wild0000"),
        ("A.b.C.corp.internal", "wild0000"),
        ("_ldap._tcp.corp.internal", "wild0000"),
    ],
)
async def test_names_under_a_hostname_route(name: str, route: str) -> None:
    for kind in (dnswire.A, dnswire.HTTPS, 65280):
        assert await said(dnswire.name_wire(name), kind=kind) == HostRoute(route, name.lower(), "default")


async def test_a_route_of_another_virtual_network_is_none() -> None:
    assert isinstance(await said(dnswire.name_wire("payroll.internal"), OTHER.vnet), Answer)


@pytest.mark.parametrize("label", [b"Office Printer", b"a.b", b"-x", b"\xff\x00"])
async def test_what_is_no_hostname_under_a_wildcard_is_refused_and_asked_of_nobody(label: bytes) -> None:
    wire = bytes((len(label),)) + label + dnswire.name_wire("corp.internal")
    answer = await said(wire)
    assert isinstance(answer, Answer)
    assert answer.message[3] & 15 == dnswire.REFUSED
    assert b"no hostname" in answer.message


ZONE = Route("zone0000", "resolver", "corp.example", "tunnel00", "default", "", 1, 1, ("10.10.0.53", "10.10.0.54:5353"))
REVERSE = replace(ZONE, id="reverse0", value="10.10.in-addr.arpa")
INNER = replace(ZONE, id="inner000", kind="host", value="*.web.corp.example", servers=())
APEX = replace(ZONE, id="apex0000", kind="host", value="www.corp.example", servers=())
ROUTED = build(1, 1, SNAPSHOT.tunnels.values(), [ZONE, REVERSE, INNER, APEX], [DEVICE])


@asynccontextmanager
async def judge(**more: Any) -> AsyncIterator[JudgeResolver]:
    resolver = JudgeResolver(ResolverConfig(), lambda: ROUTED, **more)
    try:
        yield resolver
    finally:
        await resolver.close()


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("corp.example", ZONE),
        ("a.b.corp.example", ZONE),
        ("web.corp.example", ZONE),
        ("x.web.corp.example", INNER),
        ("www.corp.example", APEX),
        ("5.0.10.10.in-addr.arpa", REVERSE),
    ],
)
async def test_who_answers_for_a_name(name: str, route: Route) -> None:
    """The exact hostname, then the longest zone or wildcard."""
    async with judge() as resolver:
        said = await resolver.answer(DEVICE, dnswire.build_query(7, dnswire.name_wire(name), dnswire.A), "udp")
    assert said == HostRoute(route.id, name, "default", route.servers)


def rcode(said: Answer | HostRoute) -> int:
    assert isinstance(said, Answer)
    return said.message[3] & 15


QUERY = dnswire.build_query(7, dnswire.name_wire("nobody.internal"), dnswire.A)


async def test_nothing_is_answered_before_the_lists_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.edge.judge.resolver.LOADING", 0.05)
    loaded = asyncio.Event()
    async with judge(loaded=loaded) as resolver:
        assert rcode(await resolver.answer(DEVICE, QUERY, "udp")) == dnswire.SERVFAIL
        routed = dnswire.build_query(7, dnswire.name_wire("corp.example"), dnswire.A)
        assert isinstance(await resolver.answer(DEVICE, routed, "udp"), HostRoute)
        loaded.set()
        assert rcode(await resolver.answer(DEVICE, QUERY, "udp")) == dnswire.NXDOMAIN
        assert resolver.refused == {"loading": 1}


async def test_a_flood_slows_its_own_device_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.edge.judge.resolver.SLOWED", 0.2)
    other = replace(DEVICE, id="other000")
    async with judge(limit=LimitSettings(per_second=1, burst=3)) as resolver:
        flood = [asyncio.create_task(resolver.answer(DEVICE, QUERY, "udp")) for _ in range(100)]
        await asyncio.sleep(0)
        assert rcode(await resolver.answer(other, QUERY, "udp")) == dnswire.NXDOMAIN
        codes = Counter(rcode(said) for said in await asyncio.gather(*flood))
    assert codes == {dnswire.NXDOMAIN: 3, dnswire.REFUSED: 97}
    assert resolver.refused == {"under_way": 33, "rate": 64}


async def test_why_is_told_with_the_route_and_its_servers() -> None:
    async with judge() as resolver:
        query = dnswire.build_query(7, dnswire.name_wire("a.corp.example"), dnswire.A)
        said = await resolver.explain(DEVICE, query)
    assert said["rule"] == "resolver route corp.example"
    assert said["servers"] == "10.10.0.53, 10.10.0.54:5353"
