"""Which queries are answered by the resolver, and which are hostname routes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.edge.judge.test_decide import DEVICE, OTHER, SNAPSHOT
from warren.dnsfilter.core.config import ResolverConfig
from warren.edge.judge.resolver import JudgeResolver
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
