"""The resolver against upstreams on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from dnslib import RR, SOA, A, DNSRecord

from tests.loopback.dnsfilter.upstream import Answering, FakeUpstream, address
from warren.dnsfilter import forwarder
from warren.dnsfilter.core import upstream as core
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream, Zone
from warren.dnsfilter.core.stages.host_routes import Routes
from warren.dnsfilter.core.verdict import Client, Kind, Resolved
from warren.dnsfilter.resolver import Resolver
from warren.fabric.core import dnswire as wire

CLIENT = Client(device="d1")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def query(name: str, kind: int = wire.A, ident: int = 77, *, edns: bool = True) -> bytes:
    return wire.build_query(ident, wire.name_wire(name), kind, edns=edns)


@asynccontextmanager
async def resolving(
    *answerings: Answering,
    order: str = "ordered",
    zones: tuple[Zone, ...] = (),
    routes: Routes | None = None,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[tuple[Resolver, list[FakeUpstream]]]:
    """A resolver whose group "default" has one upstream an answering; a second group "corp" has the last one."""
    upstreams = [await FakeUpstream(answering).__aenter__() for answering in answerings]
    servers = tuple(Upstream("127.0.0.1", upstream.port) for upstream in upstreams)
    groups = {"default": Group(servers, order)} if servers else {}  # type: ignore[arg-type]
    if zones:
        groups = {"default": Group(servers[:1]), "corp": Group(servers[-1:])}
    config = ResolverConfig(groups=groups, zones=zones)
    resolver = Resolver(config, routes, clock) if clock else Resolver(config, routes)
    try:
        yield resolver, upstreams
    finally:
        await resolver.close()
        for upstream in upstreams:
            await upstream.__aexit__()


def run(case: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(case(), 20))  # type: ignore[arg-type]


def parsed(resolved: Resolved) -> DNSRecord:
    return DNSRecord.parse(resolved.message)


def test_forwarded_then_cached_with_what_is_left_of_its_life() -> None:
    clock = Clock()

    async def case() -> None:
        async with resolving(lambda q, _: address(q), clock=clock) as (resolver, (upstream,)):
            first = await resolver.resolve(query("WWW.example"), CLIENT)
            assert first.verdict.kind is Kind.FORWARDED and str(parsed(first).rr[0].rdata) == "192.0.2.1"
            clock.now += 25
            second = await resolver.resolve(query("www.example", ident=5), CLIENT)
            assert second.verdict.kind is Kind.CACHED
            assert (parsed(second).header.id, parsed(second).rr[0].ttl) == (5, 35)
            clock.now += 40
            assert (await resolver.resolve(query("www.example"), CLIENT)).verdict.kind is Kind.FORWARDED
            assert len(upstream.asked) == 2

    run(case)


def test_the_same_question_at_once_is_asked_once() -> None:
    async def case() -> None:
        async with resolving(lambda q, _: address(q)) as (resolver, (upstream,)):
            answers = await asyncio.gather(*(resolver.resolve(query("a.example", ident=n), CLIENT) for n in range(50)))
            assert [parsed(answer).header.id for answer in answers] == list(range(50))
            assert len(upstream.asked) == 1

    run(case)


def test_who_gives_up_takes_nobody_along() -> None:
    async def case() -> None:
        async with resolving(lambda q, _: address(q)) as (resolver, (upstream,)):
            tasks = [asyncio.create_task(resolver.resolve(query("a.example"), CLIENT)) for _ in range(2)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            assert (await tasks[1]).verdict.kind is Kind.FORWARDED and len(upstream.asked) == 1

    run(case)


def test_a_cut_answer_is_fetched_over_tcp() -> None:
    def answering(q: DNSRecord, transport: str) -> bytes:
        if transport == "tcp":
            return address(q, count=100)
        cut = q.reply()
        cut.header.tc = 1
        return bytes(cut.pack())

    async def case() -> None:
        async with resolving(answering) as (resolver, (upstream,)):
            over_tcp = await resolver.resolve(query("a.example"), CLIENT, "tcp")
            assert parsed(over_tcp).header.a == 100
            over_udp = parsed(await resolver.resolve(query("a.example"), CLIENT))
            assert over_udp.header.tc and over_udp.header.a == 0
            assert [transport for transport, _ in upstream.asked] == ["udp", "tcp"]

    run(case)


def test_wrong_replies_change_nothing() -> None:
    def answering(q: DNSRecord, _: str) -> list[bytes]:
        right = address(q)
        wrong_id = bytes((right[0] ^ 1,)) + right[1:]
        other_name = DNSRecord.question("other.example").reply()
        other_name.header.id = q.header.id
        other_name.add_answer(RR("other.example", rdata=A("192.0.2.66"), ttl=60))
        return [b"", b"x" * 700, wrong_id, bytes(other_name.pack()), right]

    async def case() -> None:
        async with resolving(answering) as (resolver, _):
            assert str(parsed(await resolver.resolve(query("a.example"), CLIENT)).rr[0].rdata) == "192.0.2.1"

    run(case)


def test_a_flood_of_wrong_replies_leads_to_tcp() -> None:
    def answering(q: DNSRecord, transport: str) -> list[bytes]:
        right = address(q)
        return [right] if transport == "tcp" else [bytes((right[0] ^ 1,)) + right[1:]] * (core.WRONG_MAX + 5)

    async def case() -> None:
        async with resolving(answering) as (resolver, (upstream,)):
            assert (await resolver.resolve(query("a.example"), CLIENT)).verdict.kind is Kind.FORWARDED
            assert upstream.asked[-1][0] == "tcp"

    run(case)


def test_a_reply_in_another_case_is_believed_over_tcp_only() -> None:
    def answering(q: DNSRecord, transport: str) -> bytes:
        q.q.qname = str(q.q.qname).lower()
        return address(q, "192.0.2.1" if transport == "tcp" else "192.0.2.66")

    async def case() -> None:
        async with resolving(answering) as (resolver, (upstream,)):
            name = "abcdefghijklmnopqrstuvwxyz.example"
            assert str(parsed(await resolver.resolve(query(name), CLIENT)).rr[0].rdata) == "192.0.2.1"
            await resolver.resolve(query("next." + name), CLIENT)
            assert [transport for transport, _ in upstream.asked] == ["udp", "tcp", "udp"]
            assert upstream.asked[2][1] == f"next.{name}."  # this one does not keep case, so none is sent

    run(case)


def test_the_next_upstream_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "TRY_S", 0.05)

    def failing(q: DNSRecord, _: str) -> bytes:
        reply = q.reply()
        reply.header.rcode = wire.SERVFAIL
        return bytes(reply.pack())

    async def case() -> None:
        for bad in (lambda q, _: None, failing):
            async with resolving(bad, lambda q, _: address(q)) as (resolver, upstreams):
                resolved = await resolver.resolve(query("a.example"), CLIENT)
                assert resolved.verdict.upstream.endswith(str(upstreams[1].port))
                assert parsed(resolved).header.rcode == 0

    run(case)


def test_the_quicker_of_two_wins() -> None:
    async def case() -> None:
        async with resolving(lambda q, _: None, lambda q, _: address(q), order="racing") as (resolver, upstreams):
            resolved = await resolver.resolve(query("a.example"), CLIENT)
            assert resolved.verdict.upstream.endswith(str(upstreams[1].port))
            assert len(upstreams[0].asked) == 1

    run(case)


def test_silence_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "TRY_S", 0.05)

    async def case() -> None:
        async with resolving(lambda q, _: None) as (resolver, _):
            resolved = await resolver.resolve(query("a.example"), CLIENT)
            message = parsed(resolved)
            assert resolved.verdict.kind is Kind.FAILED and message.header.rcode == wire.SERVFAIL
            assert b"did not answer" in message.ar[0].rdata[0].data

    run(case)


def test_a_failure_is_remembered_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "TRY_S", 0.05)
    clock = Clock()

    async def case() -> None:
        async with resolving(lambda q, _: None, clock=clock) as (resolver, (upstream,)):
            for _ in range(3):
                assert (await resolver.resolve(query("a.example"), CLIENT)).verdict.kind is Kind.FAILED
            asked = len(upstream.asked)
            upstream.answering = lambda q, _: address(q)
            clock.now += 6
            assert (await resolver.resolve(query("a.example"), CLIENT)).verdict.kind is Kind.FORWARDED
            assert len(upstream.asked) == asked + 1 == core.ROUNDS + 1

    run(case)


def test_cached_names_are_answered_during_a_flood_of_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "IN_FLIGHT_MAX", 200)

    async def case() -> None:
        quiet = False

        def answering(q: DNSRecord, _: str) -> bytes | None:
            return None if quiet else address(q)

        async with resolving(answering) as (resolver, _):
            await resolver.resolve(query("www.example"), CLIENT)
            quiet = True
            flood = [asyncio.create_task(resolver.resolve(query(f"r{n}.example"), CLIENT)) for n in range(2000)]
            await asyncio.sleep(0)
            for _ in range(100):
                assert (await resolver.resolve(query("www.example"), CLIENT)).verdict.kind is Kind.CACHED
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)

    run(case)


def test_only_trusted_upstreams_say_what_is_authentic() -> None:
    def answering(q: DNSRecord, _: str) -> bytes:
        message = bytearray(address(q))
        message[3] |= wire.AD
        return bytes(message)

    async def case() -> None:
        for trusted in (False, True):
            async with FakeUpstream(answering) as upstream:
                group = Group((Upstream("127.0.0.1", upstream.port),), trust_ad=trusted)
                resolver = Resolver(ResolverConfig(groups={"default": group}))
                asking = wire.build_query(1, wire.name_wire("a.example"), wire.A, flags=wire.RD | wire.AD)
                for _ in range(2):
                    assert bool((await resolver.resolve(asking, CLIENT)).message[3] & wire.AD) is trusted
                await resolver.close()

    run(case)


def test_stale_answers_while_upstreams_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "TRY_S", 0.05)
    clock = Clock()

    async def case() -> None:
        async with resolving(lambda q, _: address(q), clock=clock) as (resolver, (upstream,)):
            await resolver.resolve(query("a.example"), CLIENT)
            upstream.answering = lambda q, _: None
            clock.now += 3600
            resolved = await resolver.resolve(query("a.example"), CLIENT)
            message = parsed(resolved)
            assert resolved.verdict.kind is Kind.STALE and message.rr[0].ttl == 30
            assert message.ar[0].rdata[0].data[:2] == b"\x00\x03"
            clock.now += 86_400
            assert (await resolver.resolve(query("a.example"), CLIENT)).verdict.kind is Kind.FAILED

    run(case)


def test_an_answer_often_asked_for_is_fetched_before_it_ends() -> None:
    clock = Clock()

    async def case() -> None:
        async with resolving(lambda q, _: address(q), clock=clock) as (resolver, (upstream,)):
            for passed in (0, 1, 1, 55):
                clock.now += passed
                await resolver.resolve(query("a.example"), CLIENT)
            await asyncio.gather(*resolver._prefetches)
            assert len(upstream.asked) == 2
            clock.now += 30
            assert (await resolver.resolve(query("a.example"), CLIENT)).verdict.kind is Kind.CACHED

    run(case)


def test_negative_answers_are_kept_as_the_soa_says() -> None:
    clock = Clock()

    def answering(q: DNSRecord, _: str) -> bytes:
        reply = q.reply()
        reply.header.rcode = wire.NXDOMAIN
        reply.add_auth(RR("example", 6, rdata=SOA("n.x", "h.x", (1, 2, 3, 4, 50)), ttl=100))
        return bytes(reply.pack())

    async def case() -> None:
        async with resolving(answering, clock=clock) as (resolver, _):
            await resolver.resolve(query("a.example"), CLIENT)
            clock.now += 49
            resolved = await resolver.resolve(query("a.example"), CLIENT)
            assert resolved.verdict.kind is Kind.CACHED and parsed(resolved).header.rcode == wire.NXDOMAIN
            clock.now += 2
            assert (await resolver.resolve(query("a.example"), CLIENT)).verdict.kind is Kind.FORWARDED

    run(case)


def test_a_private_name_never_reaches_a_public_upstream() -> None:
    async def case() -> None:
        zones = (Zone("corp.example", "corp"), Zone("lab.internal", "corp"), Zone("void.example"))
        async with resolving(lambda q, _: address(q), lambda q, _: address(q, "10.0.0.1"), zones=zones) as (
            resolver,
            (public, private),
        ):
            inside = ["corp.example", "a.b.corp.example", "host.lab.internal"]
            nowhere = ["payroll.internal", "printer.local", "x.onion", "5.1.168.192.in-addr.arpa", "a.void.example"]
            for name in inside:
                assert str(parsed(await resolver.resolve(query(name), CLIENT)).rr[0].rdata) == "10.0.0.1"
            for name in nowhere:
                resolved = await resolver.resolve(query(name, wire.A), CLIENT)
                assert resolved.verdict.kind is Kind.LOCAL and parsed(resolved).header.rcode == wire.NXDOMAIN
            assert public.asked == [] and len(private.asked) == len(inside)
            private.answering = lambda q, _: bytes(q.reply().pack()[:2]) + b"\x81\x82" + bytes(q.pack())[4:]
            await resolver.resolve(query("broken.corp.example"), CLIENT)
            assert public.asked == []
            await resolver.resolve(query("xcorp.example"), CLIENT)
            assert len(public.asked) == 1

    run(case)


def test_a_name_under_a_hostname_route_is_handed_to_it() -> None:
    name = wire.name_wire("payroll.internal")

    async def case() -> None:
        async with resolving(routes=lambda wired, client: "r1" if wired == name and client is CLIENT else None) as (
            resolver,
            _,
        ):
            resolved = await resolver.resolve(query("PayRoll.internal"), CLIENT)
            assert resolved.verdict.kind is Kind.HOST_ROUTE and resolved.verdict.route == "r1"
            assert resolved.message == b"" and resolved.question is not None
            assert resolved.question.text == "payroll.internal"
            other = await resolver.resolve(query("payroll.internal"), Client(device="d2"))
            assert parsed(other).header.rcode == wire.NXDOMAIN

    run(case)


def test_without_upstreams_nothing_is_asked() -> None:
    async def case() -> None:
        async with resolving() as (resolver, _):
            resolved = await resolver.resolve(query("www.example"), CLIENT)
            assert parsed(resolved).header.rcode == wire.REFUSED
            assert b"no upstream" in parsed(resolved).ar[0].rdata[0].data

    run(case)


def test_too_many_questions_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "IN_FLIGHT_MAX", 3)
    monkeypatch.setattr(core, "TRY_S", 0.05)

    async def case() -> None:
        async with resolving(lambda q, _: None) as (resolver, _):
            answers = await asyncio.gather(*(resolver.resolve(query(f"{n}.example"), CLIENT) for n in range(5)))
            assert sum("in flight" in answer.verdict.rule for answer in answers) == 2

    run(case)


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "answers"),
    [
        ("localhost", wire.A, 0, ["127.0.0.1"]),
        ("a.localhost", wire.AAAA, 0, ["::1"]),
        ("internal", wire.A, 0, []),
        ("www.example", wire.AXFR, wire.REFUSED, []),
        ("www.example", wire.ANY, 0, ['"RFC8482" ""']),
    ],
)
def test_what_is_answered_here(name: str, kind: int, rcode: int, answers: list[str]) -> None:
    async def case() -> None:
        async with resolving() as (resolver, _):
            message = parsed(await resolver.resolve(query(name, kind), CLIENT))
            assert message.header.rcode == rcode
            if kind != wire.ANY:
                assert [str(rr.rdata) for rr in message.rr] == answers
            else:
                assert [rr.rtype for rr in message.rr] == [wire.HINFO]

    run(case)


def test_rubbish_is_dropped_or_told_so() -> None:
    async def case() -> None:
        async with resolving() as (resolver, _):
            assert (await resolver.resolve(b"\x00", CLIENT)).message == b""
            refused = await resolver.resolve(query("a.example")[:-3], CLIENT)
            assert refused.verdict.kind is Kind.MALFORMED and refused.message[3] & 15 == wire.FORMERR

    run(case)
