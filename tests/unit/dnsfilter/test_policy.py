"""The compiled policy against a naive reading of it."""

from __future__ import annotations

import datetime
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.lists import Kind, ListParser
from warren.dnsfilter.core.policy import CompiledPolicy, ListInfo, Override, Policy, PolicyRule, Ruling
from warren.dnsfilter.core.records import TYPES
from warren.dnsfilter.core.rules import Outcome, RuleSet
from warren.dnsfilter.core.safesearch import safe_name
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError
from warren.fabric.core.selectors import Subject, When, Who

NOBODY = Subject()
NOON = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC).timestamp()


def lists(*texts: tuple[str, Kind, tuple[str, ...]]) -> tuple[RuleSet, list[ListInfo]]:
    builder, infos = Builder(), []
    for number, (text, kind, categories) in enumerate(texts):
        parser = ListParser(builder, f"list{number}", kind)
        parser.feed(text.encode())
        parser.end()
        infos.append(ListInfo(f"list{number}", kind, categories))
    return builder.finish(), infos


def ruled(
    compiled: CompiledPolicy,
    rules: RuleSet,
    name: str,
    client: Subject = NOBODY,
    kind: int = wire.A,
    at: float = NOON,
) -> Ruling:
    wired = wire.name_wire(name)
    return compiled.ruling(wired, kind, client, rules.match(wired, kind, client), at)


def rule_name(ruling: Ruling) -> str:
    return ruling.rule.name if ruling.rule else ""


def test_the_first_that_matches_decides() -> None:
    rules, infos = lists(("||ads.example^", "block", ("ads",)), ("||evil.example^", "block", ("malware",)))
    compiled = CompiledPolicy(
        Policy(
            rules=(
                PolicyRule("work", "allow", names=("*.work.ads.example",)),
                PolicyRule("kids", "block", who=Who(groups=("kids",)), names=("*.games.example", "chat.example")),
                PolicyRule("ads", "block", categories=("ads", "malware")),
                PolicyRule("no-https", "block", types=("HTTPS",)),
            )
        ),
        infos,
    )
    kid = Subject(groups=frozenset({"kids"}))
    assert rule_name(ruled(compiled, rules, "a.work.ads.example")) == "work"
    assert rule_name(ruled(compiled, rules, "b.ads.example")) == "ads"
    assert rule_name(ruled(compiled, rules, "x.games.example", kid)) == "kids"
    assert rule_name(ruled(compiled, rules, "games.example", kid)) == "kids"
    assert rule_name(ruled(compiled, rules, "x.chat.example", kid)) == ""
    assert rule_name(ruled(compiled, rules, "x.games.example")) == ""
    assert rule_name(ruled(compiled, rules, "x.org", kind=wire.HTTPS)) == "no-https"


def test_rules_that_hold_at_times() -> None:
    rules, infos = lists()
    night = When(start="22:00", end="06:00")
    compiled = CompiledPolicy(Policy(rules=(PolicyRule("night", "block", when=night),)), infos)
    for hour, expected in ((12, ""), (23, "night"), (5, "night"), (6, "")):
        at = NOON + (hour - 12) * 3600
        assert rule_name(ruled(compiled, rules, "x.org", at=at)) == expected
    assert rule_name(ruled(compiled, rules, "x.org", at=NOON + 10 * 3600 - 1)) == ""
    assert rule_name(ruled(compiled, rules, "x.org", at=NOON + 10 * 3600)) == "night"  # not a minute late


def test_exceptions_pass_on_to_the_next_rule() -> None:
    rules, infos = lists(("||a.org^\n@@||ok.a.org^", "block", ("ads",)), ("||ok.a.org^", "block", ("malware",)))
    policy = Policy(
        rules=(PolicyRule("ads", "block", categories=("ads",)), PolicyRule("bad", "block", categories=("malware",)))
    )
    assert rule_name(ruled(CompiledPolicy(policy, infos), rules, "ok.a.org")) == "bad"


def test_an_allow_list_without_category_counts_for_every_rule() -> None:
    rules, infos = lists(("||a.org^", "block", ("ads",)), ("ok.a.org", "allow", ()), ("x.a.org", "allow", ("work",)))
    policy = Policy(
        rules=(PolicyRule("work", "allow", categories=("work",)), PolicyRule("ads", "block", categories=("ads",)))
    )
    compiled = CompiledPolicy(policy, infos)
    names = ("a.org", "ok.a.org", "x.a.org")
    assert [rule_name(ruled(compiled, rules, name)) for name in names] == ["ads", "", "work"]


def test_only_what_is_allowed() -> None:
    rules, infos = lists(("||school.org^", "allow", ("school",)))
    policy = Policy(rules=(PolicyRule("school", "allow", categories=("school",)), PolicyRule("rest", "block")))
    compiled = CompiledPolicy(policy, infos)
    assert rule_name(ruled(compiled, rules, "www.school.org")) == "school"
    assert rule_name(ruled(compiled, rules, "x.org")) == "rest"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("www.google.com", "forcesafesearch.google.com"),
        ("google.de", "forcesafesearch.google.com"),
        ("www.google.co.uk", "forcesafesearch.google.com"),
        ("www.google.com.au", "forcesafesearch.google.com"),
        ("mail.google.com", ""),
        ("www.google.evil.com", ""),
        ("notgoogle.com", ""),
        ("forcesafesearch.google.com", ""),
        ("www.bing.com", "strict.bing.com"),
        ("m.youtube.com", "restrict.youtube.com"),
        ("duckduckgo.com", "safe.duckduckgo.com"),
    ],
)
def test_safe_search(name: str, target: str) -> None:
    found = safe_name(wire.name_wire(name))
    assert (wire.name_text(found) if found else "") == target


@pytest.mark.parametrize(
    "rule",
    [
        PolicyRule("r", "block", names=("a..b",)),
        PolicyRule("r", "block", categories=("nosuch",)),
        PolicyRule("r", "block", types=("BOGUS",)),
        PolicyRule("r", "resolver"),
        PolicyRule("r", "resolver", resolver="nosuch"),
        PolicyRule("r", "block", resolver="corp"),
        PolicyRule("r", "override"),
        PolicyRule("r", "override", override=Override()),
        PolicyRule("r", "override", override=Override(addresses=("1.2.3",))),
        PolicyRule("r", "override", override=Override(addresses=("1.2.3.4",), cname="a.b")),
        PolicyRule("r", "allow", answer="zero"),
        PolicyRule("r", "block", who=Who(networks=("x",))),
        PolicyRule("r", "block", when=When(zone="x")),
    ],
)
def test_a_wrong_rule_is_one_line_that_names_it(rule: PolicyRule) -> None:
    with pytest.raises(ConfigError, match=r"^dns\.policy: rule 'r': [^\n]+$"):
        CompiledPolicy(Policy(rules=(rule,)), (), ("corp",))


NAMES = ["a.org", "x.a.org", "y.x.a.org", "b.net", "x.b.net", "www.google.com"]
KINDS = ["A", "AAAA", "HTTPS"]
CATEGORIES = ["ads", "bad", "work"]
CLIENTS = [
    Subject(),
    Subject(device="d1", groups=frozenset({"kids"}), address="10.0.0.1"),
    Subject(user="u1", tags=frozenset({"t1"}), address="10.1.0.1"),
]
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["{}", "||{}^", "@@||{}^", "||{}^$important"]), st.sampled_from(NAMES)), max_size=5
)
LISTS = st.lists(st.tuples(ENTRIES, st.sampled_from(["block", "block", "allow"])), min_size=3, max_size=3)
SOME = {"max_size": 1}
RULES = st.builds(
    PolicyRule,
    name=st.uuids().map(str),
    action=st.sampled_from(["allow", "block", "safe-search"]),
    who=st.builds(
        Who,
        users=st.lists(st.just("u1"), **SOME).map(tuple),
        groups=st.lists(st.just("kids"), **SOME).map(tuple),
        networks=st.lists(st.sampled_from(["10.0.0.0/16", "10.1.0.0/24"]), **SOME).map(tuple),
    ),
    when=st.none() | st.just(When(start="11:00", end="13:00")) | st.just(When(start="13:00", end="11:00")),
    names=st.lists(st.sampled_from([*NAMES, "*.a.org", "*.x.a.org", "*.net", "*"]), max_size=2).map(tuple),
    categories=st.lists(st.sampled_from(CATEGORIES), max_size=2).map(tuple),
    types=st.lists(st.sampled_from(KINDS), **SOME).map(tuple),
)


@settings(max_examples=400, deadline=None)
@given(LISTS, st.lists(RULES, max_size=8), st.lists(st.booleans(), min_size=3, max_size=3))
def test_a_naive_interpreter_agrees(
    chosen: list[tuple[list[tuple[str, str]], Kind]], rules: list[PolicyRule], categorised: list[bool]
) -> None:
    # a category of each list's own, so that every category exists; allow lists may go without
    named = [
        ("\n".join(form.format(name) for form, name in entries), kind, (CATEGORIES[number],))
        for number, (entries, kind) in enumerate(chosen)
    ]
    extra = ("||x.b.net^", "allow", () if categorised[0] else ("ads",))
    ruleset, infos = lists(*named, extra)  # type: ignore[arg-type]
    compiled = CompiledPolicy(Policy(rules=tuple(rules)), infos)
    everything = [(entries, kind, CATEGORIES[number]) for number, (entries, kind) in enumerate(chosen)]
    everything.append(([("||{}^", "x.b.net")], "allow", "" if categorised[0] else "ads"))
    for client in CLIENTS:
        for name in NAMES:
            for kind in KINDS[:2]:
                got = ruled(compiled, ruleset, name, client, TYPES[kind])
                assert rule_name(got) == naive(rules, everything, name, kind, client)


def naive(
    rules: list[PolicyRule],
    all_lists: list[tuple[list[tuple[str, str]], Kind, str]],
    name: str,
    kind: str,
    client: Subject,
) -> str:
    for rule in rules:
        if rule.who.users and client.user not in rule.who.users:
            continue
        if rule.who.groups and not set(rule.who.groups) & client.groups:
            continue
        if rule.who.networks and not any(client.address.startswith(net[:5]) for net in rule.who.networks):
            continue
        if rule.when is not None and rule.when.start == "13:00":
            continue  # it is noon
        if rule.types and kind not in rule.types:
            continue
        if rule.names and not any(_named(pattern, name) for pattern in rule.names):
            continue
        if rule.categories and not _listed(rule, all_lists, name):
            continue
        if rule.action == "safe-search" and name != "www.google.com":
            continue
        return rule.name
    return ""


def _named(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return name == pattern[2:] or name.endswith(pattern[1:])
    return name == pattern


def _listed(rule: PolicyRule, all_lists: list[tuple[list[tuple[str, str]], Kind, str]], name: str) -> bool:
    hits = set()
    for entries, kind, category in all_lists:
        if category not in rule.categories and not (kind == "allow" and not category and rule.action != "allow"):
            continue
        for form, entry in entries:
            if name == entry or (form != "{}" and name.endswith("." + entry)):
                hits.add("trusted" if kind == "allow" else form)
    if not hits:
        return False
    if "trusted" in hits:
        return rule.action == "allow"
    if "||{}^$important" in hits:
        return True
    if "@@||{}^" in hits:
        return rule.action == "allow"
    return True


def test_two_hundred_rules_cost_little() -> None:
    rules, infos = lists(("||ads.example^", "block", ("ads",)))
    many = [PolicyRule(f"r{n}", "block", who=Who(devices=(f"d{n}",)), names=(f"*.n{n}.example",)) for n in range(199)]
    compiled = CompiledPolicy(Policy(rules=(*many, PolicyRule("ads", "block", categories=("ads",)))), infos)
    name, client = wire.name_wire("www.some.example"), Subject(device="d7")
    compiled.ruling(name, wire.A, client, None, NOON)
    best = 1.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(1000):
            compiled.ruling(name, wire.A, client, rules.match(name, wire.A, client), NOON)
        best = min(best, (time.perf_counter() - started) / 1000)
    assert best < 0.0001


def test_the_outcome_of_lists_is_told() -> None:
    rules, infos = lists(("||a.org^$dnsrewrite=1.2.3.4", "block", ("ads",)))
    compiled = CompiledPolicy(Policy(rules=(PolicyRule("ads", "block", categories=("ads",)),)), infos)
    decision = ruled(compiled, rules, "a.org").decision
    assert decision is not None and decision.outcome is Outcome.REWRITTEN
