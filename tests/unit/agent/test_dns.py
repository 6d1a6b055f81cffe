"""Queries at the virtual resolver, with a judge and a private resolver that say what the test wants."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, cast

import dnslib
import pytest

from warren.agent.dns import Choice, DnsFront
from warren.agent.dns_before import ResolversBefore
from warren.agent.dns_private import Transport
from warren.fabric.core import dnswire
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.session import Answer, Granted, HostRoute
from warren.fabric.core.reasons import Reason

SYNTHETIC = IPv4Address("100.80.0.77")
SYNTHETIC6 = IPv6Address("fd77:6172:7265:6e00::6450:7")


class World:
    """Judge, private resolver and names in one. `zone`: what the private resolver knows, as a zone file."""

    def __init__(self, zone: str = "", rcode: int = 0) -> None:
        self.zone = dnslib.RR.fromZone(zone)
        self.rcode = rcode
        self.asked: list[tuple[str, str]] = []
        self.decided: list[str] = []
        self.four_only = False
        self.full = False

    async def query(self, message: bytes, transport: str) -> Answer | HostRoute:
        question = dnswire.read_question(message)
        assert isinstance(question, dnswire.Question)
        return HostRoute("route", question.text, "default")

    async def decide(
        self, protocol: str, port: int, *, address: str = "", host: str = "", resolver: str = ""
    ) -> Granted:
        self.decided.append(host or address)
        return Granted(1, b"grant", b"", "tunnel", "office", b"", b"", "route")

    async def resolve(self, granted: Granted, query: bytes) -> bytes:
        request = dnslib.DNSRecord.parse(query)
        name, kind = str(request.q.qname), dnslib.QTYPE[request.q.qtype]
        self.asked.append((name, kind))
        reply = request.reply()
        reply.header.rcode = self.rcode
        kinds = (request.q.qtype, dnslib.QTYPE.CNAME)
        reply.add_answer(*(record for record in self.zone if record.rtype in kinds))
        if not reply.rr:
            reply.add_auth(*(record for record in self.zone if record.rtype == dnslib.QTYPE.SOA))
        return bytes(reply.pack())

    def address_of(self, vnet: str, name: str) -> bytes | None:
        return None if self.full else SYNTHETIC.packed

    def address6_of(self, vnet: str, name: str) -> bytes | None:
        return None if self.four_only else SYNTHETIC6.packed

    def name_of(self, address: bytes) -> str | None:
        return "payroll.internal" if address == SYNTHETIC.packed else None

    def is_synthetic(self, address: bytes) -> bool:
        return len(address) == 4 and IPv4Address(address) in ip_network("100.80.0.0/16")


ZONES = ("payroll.internal", "*.corp.internal")


def ask(
    world: World, name: str, kind: str = "A", transport: Transport = "udp", zones: tuple[str, ...] = ZONES
) -> dnslib.DNSRecord:
    front = DnsFront(cast("Any", None), world, world, world, ResolversBefore(0))
    captured = [ip_network(cidr) for cidr in ("10.10.0.0/16", "fd00::/64")]
    left = [ip_network("10.10.9.0/24")]
    front.configure(zones, (), captured, cast("Any", left))
    query = dnslib.DNSRecord.question(name, kind)
    query.add_ar(dnslib.EDNS0(udp_len=1232))
    return dnslib.DNSRecord.parse(asyncio.run(front.answer(bytes(query.pack()), transport)))


def data(answer: dnslib.DNSRecord) -> list[str]:
    return [str(record.rdata) for record in answer.rr]


HERE = "x. 60 IN A 10.10.0.10"


@pytest.mark.parametrize("name", ["payroll.internal", "a.corp.internal", "a.b.c.corp.internal", "A.B.Corp.Internal"])
def test_names_under_a_route_get_a_synthetic_address(name: str) -> None:
    assert data(ask(World(HERE), name)) == [str(SYNTHETIC)]


@pytest.mark.parametrize("name", ["corp.internal", "xcorp.internal", "sub.payroll.internal", "internal"])
def test_other_names_are_the_resolvers_of_before(name: str) -> None:
    world = World(HERE)
    assert ask(world, name).header.rcode == dnslib.RCODE.SERVFAIL  # there is none here
    assert world.decided == []


def test_the_grant_is_for_the_very_name_under_the_wildcard() -> None:
    world = World(HERE)
    ask(world, "a.b.corp.internal")
    assert world.decided == ["a.b.corp.internal"]


def test_an_address_behind_aliases_is_synthetic_and_the_aliases_stay_there() -> None:
    answer = ask(World(f"payroll.internal. 60 IN CNAME x.\n{HERE}"), "payroll.internal")
    assert [(str(r.rname), r.rtype, str(r.rdata)) for r in answer.rr] == [("payroll.internal.", 1, str(SYNTHETIC))]


def test_aaaa_has_data_if_the_name_has_an_ipv6_address_and_the_host_has_ipv6() -> None:
    world = World(f"{HERE}\nx. 60 IN AAAA fd00::1")
    assert data(ask(world, "payroll.internal", "AAAA")) == [str(SYNTHETIC6)]
    world.four_only = True
    for each in (world, World(HERE)):
        answer = ask(each, "payroll.internal", "AAAA")
        assert (answer.header.rcode, answer.rr) == (0, [])


def test_a_name_with_an_ipv6_address_only_gets_a_synthetic_address_too() -> None:
    assert data(ask(World("x. 60 IN AAAA fd00::1"), "payroll.internal")) == [str(SYNTHETIC)]


def test_a_name_without_any_address_has_none_here() -> None:
    answer = ask(World('x. 60 IN TXT "only"'), "payroll.internal")
    assert (answer.header.rcode, answer.rr) == (0, [])


SOA = "internal. 60 IN SOA ns.internal. root.internal. 1 2 3 4 17"


@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT", "TYPE65280"])
def test_nxdomain_stays_nxdomain(kind: str) -> None:
    answer = ask(World(SOA, rcode=3), "ghost.corp.internal", kind)
    assert (answer.header.rcode, answer.rr) == (dnslib.RCODE.NXDOMAIN, [])
    assert [str(record.rname) for record in answer.auth] == ["internal."]


@pytest.mark.parametrize("rcode", [2, 5])
def test_a_failure_is_no_nxdomain(rcode: int) -> None:
    answer = ask(World(rcode=rcode), "payroll.internal")
    assert answer.header.rcode == dnslib.RCODE.SERVFAIL


def test_other_types_pass_through() -> None:
    zone = 'payroll.internal. 60 IN TXT "hello"\npayroll.internal. 60 IN MX 10 mail.corp.internal.'
    assert data(ask(World(zone), "payroll.internal", "TXT")) == ['"hello"']
    assert data(ask(World(zone), "payroll.internal", "MX")) == ["10 mail.corp.internal."]


def test_what_leads_elsewhere_is_left_out_and_said() -> None:
    answer = ask(World("payroll.internal. 60 IN SRV 1 2 3 elsewhere.example."), "payroll.internal", "SRV")
    assert (answer.header.rcode, answer.rr) == (0, [])
    assert b"1 records that lead to names outside" in answer.pack()


def test_a_long_answer_is_cut_over_udp_and_whole_over_tcp() -> None:
    zone = "".join(f'payroll.internal. 60 IN TXT "{"x" * 200}{n}"\n' for n in range(20))
    cut = ask(World(zone), "payroll.internal", "TXT")
    assert (cut.header.tc, cut.rr) == (1, [])
    whole = ask(World(zone), "payroll.internal", "TXT", "tcp")
    assert (whole.header.tc, len(whole.rr)) == (0, 20)


def test_no_free_synthetic_address_is_a_failure() -> None:
    world = World(HERE)
    world.full = True
    assert ask(world, "payroll.internal").header.rcode == dnslib.RCODE.SERVFAIL


def test_a_synthetic_address_has_its_name_back_and_a_free_one_has_none() -> None:
    world = World()
    assert data(ask(world, SYNTHETIC.reverse_pointer, "PTR")) == ["payroll.internal."]
    assert ask(world, "78.0.80.100.in-addr.arpa", "PTR").header.rcode == dnslib.RCODE.NXDOMAIN
    assert world.decided == []


@pytest.mark.parametrize("address", ["10.10.0.10", "fd00::42"])
def test_the_name_of_a_captured_address_is_the_private_resolvers(address: str) -> None:
    name = ip_address(address).reverse_pointer
    world = World(f"{name}. 60 IN PTR host.site.lan.")
    assert data(ask(world, name, "PTR")) == ["host.site.lan."]
    assert world.decided == [address]


@pytest.mark.parametrize("address", ["10.11.0.10", "10.10.9.1", "fd01::42"])
def test_the_name_of_another_address_is_not(address: str) -> None:
    world = World()
    ask(world, ip_address(address).reverse_pointer, "PTR")
    assert world.decided == []


def test_without_a_route_to_the_address_it_is_a_failure() -> None:
    class Refusing(World):
        async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Granted:
            raise DeniedError(Reason.NO_ROUTE)

    answer = ask(Refusing(), "10.0.10.10.in-addr.arpa", "PTR")
    assert answer.header.rcode == dnslib.RCODE.SERVFAIL


@pytest.mark.parametrize("name", ["payroll.acme.local", "local"])
def test_names_under_local_are_like_any_others(name: str) -> None:
    assert data(ask(World(HERE), name, zones=(name,))) == [str(SYNTHETIC)]


def test_nobody_is_led_to_the_encrypted_resolver_of_before() -> None:
    world = World()
    answer = ask(world, "_dns.resolver.arpa", "SVCB")
    assert (answer.header.rcode, answer.rr, world.decided) == (0, [], [])


class Zone(World):
    """The judge knows a resolver route; its servers answer, the first perhaps not."""

    def __init__(self, zone: str, servers: tuple[str, ...], silent: int = 0) -> None:
        super().__init__(zone)
        self.servers = servers
        self.silent = silent
        self.through: list[tuple[str, str, int, str]] = []
        self.away = 0

    async def query(self, message: bytes, transport: str) -> Answer | HostRoute:
        if self.away:
            self.away -= 1
            raise DeniedError(Reason.JUDGE_AWAY)
        said = await super().query(message, transport)
        assert isinstance(said, HostRoute)
        return HostRoute("zone", said.host, "default", self.servers)

    async def decide(
        self, protocol: str, port: int, *, address: str = "", host: str = "", resolver: str = ""
    ) -> Granted:
        self.through.append((protocol, address, port, resolver))
        return await super().decide(protocol, port, address=address, host=host)

    async def resolve(self, granted: Granted, query: bytes) -> bytes:
        if self.silent:
            self.silent -= 1
            raise DeniedError(Reason.RESOLVER_FAILED)
        return await super().resolve(granted, query)


CORP = ("corp.example", "*.corp.example", "10.10.in-addr.arpa", "*.10.10.in-addr.arpa")


def test_a_resolver_route_is_answered_by_its_server_as_it_says() -> None:
    world = Zone("www.corp.example. 60 IN A 10.10.0.10", ("10.10.0.53", "[fd00::53]:5353"))
    assert data(ask(world, "www.corp.example", zones=CORP)) == ["10.10.0.10"]
    assert world.through == [("udp", "10.10.0.53", 53, "zone")]
    assert ask(Zone("", ("10.10.0.53",)), "www.corp.example", zones=CORP).rr == []


def test_the_next_server_is_asked_where_one_is_silent() -> None:
    world = Zone("www.corp.example. 60 IN A 10.10.0.10", ("10.10.0.53", "[fd00::53]:5353"), silent=1)
    assert data(ask(world, "www.corp.example", zones=CORP)) == ["10.10.0.10"]
    assert [port for _, _, port, _ in world.through] == [53, 5353]
    world = Zone("", ("10.10.0.53", "10.10.0.54"), silent=2)
    assert ask(world, "www.corp.example", zones=CORP).header.rcode == dnslib.RCODE.SERVFAIL


def test_a_reverse_zone_goes_before_the_connectors_own_resolver() -> None:
    world = Zone("5.0.10.10.in-addr.arpa. 60 IN PTR db.corp.example.", ("10.10.0.53",))
    assert data(ask(world, "5.0.10.10.in-addr.arpa", "PTR", zones=CORP)) == ["db.corp.example."]
    assert world.through == [("udp", "10.10.0.53", 53, "zone")]


def chosen(world: World, name: str, choice: Choice, before: str = "") -> str:
    """Who was asked: `before`, `judge`, or nobody."""

    class Before(ResolversBefore):
        async def ask(self, message: bytes, transport: Transport) -> bytes:
            asked.append("before")
            return message

    class Judge(World):
        async def query(self, message: bytes, transport: str) -> Answer | HostRoute:
            if b"localhost" in message:
                return Answer(b"")
            said = await world.query(message, transport)
            asked.append("judge")
            return Answer(b"x" * 12) if isinstance(said, HostRoute) else said

    asked: list[str] = []
    front = DnsFront(cast("Any", None), Judge(), world, world, Before(0), choice)
    front.configure(CORP, ("192.0.2.53",))
    asyncio.run(front.answer(dnswire.build_query(1, dnswire.name_wire(name), dnswire.A), "udp"))
    return "+".join(asked)


EVERYTHING = Choice(everything=True, local=("fritz.box", "example"), edges=("edge.example.net",))


@pytest.mark.parametrize(
    ("name", "choice", "who"),
    [
        ("www.example.com", Choice(), "before"),
        ("www.example.com", EVERYTHING, "judge"),
        ("edge.example.net", EVERYTHING, "before"),
        ("x.edge.example.net", EVERYTHING, "judge"),
        ("nas.fritz.box", EVERYTHING, "before"),
        ("fritz.box", EVERYTHING, "before"),
        ("other.example", EVERYTHING, "before"),
        ("www.corp.example", EVERYTHING, "judge"),  # the route's zone is the longer one
    ],
)
def test_who_is_asked_about_what(name: str, choice: Choice, who: str) -> None:
    assert chosen(World(), name, choice) == who


def test_while_no_edge_answers_a_public_name_falls_back_and_a_routed_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.agent.dns.LOOK_AGAIN", 0.01)

    def away() -> Zone:
        world = Zone("", ())
        world.away = 2
        return world

    assert chosen(away(), "www.example.com", EVERYTHING) == "before"
    assert chosen(away(), "www.corp.example", EVERYTHING) == "judge"
    assert chosen(away(), "www.example.com", Choice(everything=True, fallback=False)) == "judge"
    assert chosen(away(), "nas.internal", EVERYTHING) == "judge"
    assert chosen(away(), "5.0.168.192.in-addr.arpa", EVERYTHING) == "judge"
    monkeypatch.setattr("warren.agent.dns.PATIENCE", 0.001)
    assert chosen(away(), "www.corp.example", EVERYTHING) == ""


class Slow(Zone):
    """A judge whose upstreams are slow, or that is not there at all."""

    def __init__(self, *, there: bool, slow: int = 1) -> None:
        super().__init__("", ())
        self.there = there
        self.slow = slow
        self.asked_of: list[str] = []

    async def query(self, message: bytes, transport: str) -> Answer | HostRoute:
        question = dnswire.read_question(message)
        assert isinstance(question, dnswire.Question)
        self.asked_of.append(question.text.rstrip("."))
        if not self.there or (question.text.startswith("slow") and self.slow):
            self.slow -= 1
            await asyncio.sleep(10)
        return Answer(b"judge")


@pytest.mark.parametrize(("there", "said"), [(True, [b"judge", b"judge"]), (False, [b"before", b"before"])])
def test_a_slow_name_does_not_lead_past_the_filter(there: bool, said: list[bytes], monkeypatch: Any) -> None:
    monkeypatch.setattr("warren.agent.dns.SOON", 0.05)
    monkeypatch.setattr("warren.agent.dns.AT_ONCE", 0.05)
    world = Slow(there=there)

    class Before(ResolversBefore):
        async def ask(self, message: bytes, transport: Transport) -> bytes:
            return b"before"

    async def ask() -> list[bytes]:
        front = DnsFront(cast("Any", None), world, world, world, Before(0), Choice(everything=True))
        front.configure((), ("192.0.2.53",))
        queries = [dnswire.build_query(1, dnswire.name_wire(f"{name}.example"), 1) for name in ("slow", "ads")]
        return [await front.answer(query, "udp") for query in queries]

    assert asyncio.run(ask()) == said
    names = ["slow.example", "localhost"]
    assert world.asked_of == ([*names, "slow.example", "ads.example"] if there else names)
