"""Answers for names that nobody asked for before: the same as the chain gives each of them."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from warren.dnsfilter.core import packets
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream
from warren.dnsfilter.core.lists import ListParser
from warren.dnsfilter.core.policy import CompiledPolicy, ListInfo, Policy, PolicyRule
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.core.verdict import Client, Kind, Resolved
from warren.dnsfilter.querylog import _texts
from warren.dnsfilter.resolver import Resolver
from warren.fabric.core import dnswire as wire
from warren.fabric.core.selectors import Who

KID, ADULT = Client(groups=frozenset({"kids"}), address="10.0.0.1"), Client(address="10.0.0.2")
ENTRIES = ("||{}^", "{}", "@@||{}^", "||{}^$important", "||{}^$dnstype=AAAA", "||{}^$dnsrewrite=1.2.3.4", "||*{}^")
NAMES = ("org", "a.org", "x.a.org", "y.x.a.org", "b.a.org", "z.net", "q.z.net", "www.google.com", "google.com", "other")
LISTS = st.lists(st.tuples(st.sampled_from(ENTRIES), st.sampled_from(NAMES)), min_size=1, max_size=6)
RULES = st.lists(
    st.builds(
        PolicyRule,
        name=st.uuids().map(str),
        action=st.sampled_from(["allow", "block", "block", "block", "safe-search"]),
        who=st.sampled_from([Who(), Who(groups=("kids",))]),
        names=st.lists(st.sampled_from(["a.org", "*.x.a.org", "*.net"]), max_size=1).map(tuple),
        categories=st.sampled_from([(), ("first",), ("second",), ("first", "second")]),
        types=st.sampled_from([(), (), ("A",)]),
        answer=st.just(None),
    ),
    min_size=1,
    max_size=4,
)
TAILS = st.builds(
    lambda kind, edns, ok, flags: (kind, edns, ok, flags),
    st.sampled_from([wire.A, wire.A, wire.A, wire.AAAA, wire.AAAA, wire.HTTPS, wire.ANY]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([wire.RD, 0, wire.RD | wire.CD, wire.RD | wire.AD]),
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def filtering(first: list[tuple[str, str]], second: list[tuple[str, str]], rules: list[PolicyRule]) -> Filter:
    builder, infos = Builder(), []
    for name, entries in (("first", first), ("second", second)):
        parser = ListParser(builder, name)
        parser.feed("\n".join(form.format(entry) for form, entry in entries).encode())
        parser.end()
        infos.append(ListInfo(name, categories=(name,)))
    return Filter(builder.finish(), CompiledPolicy(Policy(rules=tuple(rules)), infos))


def resolver(filter_: Filter, clock: Clock | None = None) -> Resolver:
    config = ResolverConfig(groups={"default": Group((Upstream("127.0.0.1", 9),))})
    clock = clock or Clock()
    return Resolver(config, None, clock, filter=filter_, wall=lambda: clock.now - 1000)


def alike(made: Resolver, query: bytes, client: Client, now: float = 1000.0) -> tuple[bytes, bytes] | None:
    _, found = made.at_hand([None, made.shelf(client, "udp")], [b"", query[2:]], now)
    for number, raw, name, form in found:
        assert number == 1
        return query[:2] + form.head + raw + form.rest, name
    return None


@settings(max_examples=80, deadline=None)
@given(LISTS, LISTS, RULES, st.lists(TAILS, min_size=1, max_size=2))
def test_the_chain_agrees(
    first: list[tuple[str, str]],
    second: list[tuple[str, str]],
    rules: list[PolicyRule],
    tails: list[tuple[int, bool, bool, int]],
) -> None:
    filter_ = filtering(first, second, [*rules, PolicyRule("last", "block", categories=("first", "second"))])
    made, apart = resolver(filter_), resolver(filter_)
    everything = itertools.product(("n1.{}", "{}", "N2.m.{}"), NAMES, tails, (KID, ADULT))
    for number, (form, name, (kind, edns, ok, flags), client) in enumerate(everything):
        raw = form.format(name).encode()
        raw = b"".join(bytes((len(label),)) + label for label in raw.split(b".")) + b"\x00"
        query = wire.build_query(number, raw, kind, dnssec_ok=ok, edns=edns, flags=flags)
        found = alike(made, query, client)
        decided = apart.decide(query, client)
        if found is not None:
            assert isinstance(decided, Resolved) and decided.verdict.kind is Kind.BLOCKED
            assert found == (decided.message, raw.lower())
        made.decide(query, client)


BLOCKING = [PolicyRule("ads", "block", categories=("first",))]
QUERY = wire.build_query(7, wire.name_wire("x.a.org"), wire.A)


def learnt(name: str = "x.a.org", clock: Clock | None = None) -> Resolver:
    made = resolver(filtering([("||{}^", "a.org")], [], BLOCKING), clock)
    made.decide(wire.build_query(7, wire.name_wire(name), wire.A), ADULT)
    return made


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_what_is_no_query_has_no_answer_but_the_chain_s(data: st.DataObject) -> None:
    made, apart = learnt(), learnt()
    body = bytearray(QUERY)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    query = bytes(body)
    found = alike(made, query, ADULT)
    if found is not None:
        decided = apart.decide(query, ADULT)
        assert isinstance(decided, Resolved) and decided.message == found[0]


@given(st.binary(max_size=80))
def test_total_on_anything(query: bytes) -> None:
    assert alike(learnt(), query, ADULT) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([KID, ADULT, None]), st.binary(max_size=30), st.integers(0, 9)), max_size=12))
def test_many_together_get_what_each_gets_alone(asked: list[tuple[Client | None, bytes, int]]) -> None:
    """Some of them garbage, some from who never asked, some the same."""
    made, apart = learnt(), learnt()
    made.decide(wire.build_query(7, wire.name_wire("x.a.org"), wire.A, edns=False), KID)
    queries = [
        garbage if number > 6 else wire.build_query(number, wire.name_wire(f"N{number}.a.org"), wire.A, edns=number > 2)
        for _, garbage, number in asked
    ]
    shelves = [None if client is None else made.shelf(client, "udp") for client, _, _ in asked]
    for turn in range(3):
        again, found = made.at_hand(shelves, [query[2:] for query in queries], 1000.0)
        answers = {number: queries[number][:2] + packet.given(1000.0) for number, packet in again}
        answers |= {number: queries[number][:2] + form.head + raw + form.rest for number, raw, _, form in found}
        assert len(answers) == len(again) + len(found) and not (turn and found)
        for number, (client, _, _) in enumerate(asked):
            decided = apart.decide(queries[number], client or ADULT)
            assert number not in answers or (isinstance(decided, Resolved) and decided.message == answers[number])
            if client is not None and number not in answers:
                made.decide(queries[number], client)


def test_names_that_end_in_a_listed_one_but_are_none() -> None:
    made = learnt()
    for raw in (
        b"\x03x\x00y\x01a\x03org\x00",  # a zero byte within a label
        b"\x40" + bytes([97] * 64) + b"\x01a\x03org\x00",  # a label that is too long
        b"\x3f" + b"z" * 63 + (b"\x3f" + b"z" * 63) * 3 + b"\x01a\x03org\x00",  # a name that is
        b"\x05x\x01a\x03org\x00",  # past its end
    ):
        assert alike(made, wire.build_query(1, raw, wire.A), ADULT) is None
    assert alike(made, wire.build_query(1, wire.name_wire("y.a.org"), wire.A), ADULT) is not None


def test_it_ends_with_the_minute_and_the_filter() -> None:
    clock = Clock()
    made = learnt(clock=clock)
    other = [wire.build_query(1, wire.name_wire(f"n{n}.a.org"), wire.A) for n in range(3)]
    assert alike(made, other[0], ADULT, 1059.9) is not None
    assert alike(made, other[1], ADULT, 1060.0) is None
    made.slot.current = filtering([], [], BLOCKING)
    assert alike(made, other[2], ADULT, 1001.0) is None


def test_who_asks_again_gets_a_whole_answer_made() -> None:
    made = learnt()
    query = wire.build_query(1, wire.name_wire("n.a.org"), wire.A)
    assert alike(made, query, ADULT) is not None
    assert alike(made, query, ADULT) is None
    made.decide(query, ADULT)
    shelf = made.shelf(ADULT, "udp")
    assert [number for number, _ in made.at_hand([shelf], [query[2:]], 1000.0)[0]] == [0]


def test_another_client_has_forms_of_its_own() -> None:
    made = learnt()
    assert alike(made, wire.build_query(1, wire.name_wire("n.a.org"), wire.A), KID) is None


def test_forms_are_bounded() -> None:
    made = learnt()
    for number in range(packets.FORMS_MAX + 10):
        client = Client(address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        made.decide(wire.build_query(1, wire.name_wire("n.a.org"), wire.A), client)
    assert made._packets._forms <= packets.FORMS_MAX


LABEL = st.binary(min_size=1, max_size=63) | st.text("abc-_019*/", min_size=1, max_size=50).map(str.encode)
WIRE_NAMES = st.lists(LABEL, max_size=4).map(
    lambda labels: b"".join(bytes((len(label),)) + label for label in labels).lower() + b"\x00"
)


@settings(max_examples=120, deadline=None)
@given(st.lists(WIRE_NAMES, min_size=1, max_size=6))
def test_names_in_the_log(names: list[bytes]) -> None:
    assert _texts(names) == [msgspec.json.encode(wire.name_text(name))[1:-1] for name in names]
