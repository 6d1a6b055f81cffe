"""List syntaxes, each with its entries and its rubbish; precedence as AdGuard Home and blocky document it."""

from __future__ import annotations

import ipaddress
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.lists import ListParser, Report, host_wire
from warren.dnsfilter.core.rules import Decision, Outcome, RuleSet, decide
from warren.fabric.core import dnswire as wire
from warren.fabric.core.selectors import Subject

NOBODY = Subject()


def loaded(*texts: str, allow: str = "", syntax: str = "auto") -> tuple[RuleSet, list[Report]]:
    builder, reports = Builder(), []
    for number, text in enumerate(texts):
        parser = ListParser(builder, f"list{number}", "block", syntax)  # type: ignore[arg-type]
        parser.feed(text.encode())
        reports.append(parser.end())
    if allow:
        parser = ListParser(builder, "allowed", "allow")
        parser.feed(allow.encode())
        reports.append(parser.end())
    return builder.finish(), reports


def outcome(rules: RuleSet, name: str, kind: int = wire.A, client: Subject = NOBODY, lists: int = -1) -> Decision:
    match = rules.match(wire.name_wire(name), kind, client)
    return Decision(Outcome.NOTHING) if match is None else decide(match, lists)


def said(rules: RuleSet, name: str, kind: int = wire.A, client: Subject = NOBODY) -> str:
    return outcome(rules, name, kind, client).outcome.value


BLOCKED, ALLOWED, NOTHING, REWRITTEN = "blocked", "allowed", "nothing", "rewritten"


@pytest.mark.parametrize(
    ("line", "blocked", "free"),
    [
        ("ads.example", ["ads.example"], ["x.ads.example", "example"]),  # AdGuard: a plain domain is itself only
        ("ADS.Example. # why", ["ads.example"], []),
        ("0.0.0.0 ads.example", ["ads.example"], ["x.ads.example"]),
        ("127.0.0.1\tads.example  tracker.example # both", ["ads.example", "tracker.example"], []),
        (":: ads.example", ["ads.example"], []),
        ("*.ads.example", ["ads.example", "a.b.ads.example"], ["xads.example"]),  # blocky: and the name itself
        (".ads.example", ["ads.example", "a.ads.example"], []),
        ("||ads.example^", ["ads.example", "a.b.ads.example"], ["xads.example", "ads.example.org"]),
        ("||ads.example^|", ["ads.example"], []),
        ("|ads.example^", ["ads.example"], ["x.ads.example"]),
        ("||ads.example", ["ads.example", "x.ads.example", "ads.example.org"], ["xads.example"]),
        ("ample.org|", ["example.org", "ample.org"], ["example.org.com"]),  # AdGuard's own examples
        ("|example.", ["example.org"], ["test.example.org"]),
        ("||ad*.example^", ["ad.example", "ads7.example", "x.ads.example"], ["bad.example", "ads.example.org"]),
        ("banner*", ["banner.x", "my-banner-7.x"], ["ban.x"]),
        (r"/^ads?[0-9]+\./", ["ad7.example", "ADS12.example"], ["ads.example", "xad7.example"]),
        ("/baddomain/", ["www.baddomain.com", "mybaddomain-sometext.com"], ["good.com"]),  # blocky's own example
        (r"/^apple\.(de|com)$/", ["apple.de", "apple.com"], ["apple.org", "www.apple.de"]),
        ("address=/ads.example/0.0.0.0", ["ads.example", "x.ads.example"], ["example"]),
        ("address=/a.example/b.example/", ["a.example", "b.example"], []),
        ("address=/a.example/#", ["a.example"], []),
        ("local=/a.example/", ["a.example", "x.a.example"], []),
        ("server=/a.example/", ["a.example"], []),
        ("bücher.example", ["xn--bcher-kva.example"], []),
        ("||bücher.example^", ["x.xn--bcher-kva.example"], []),
        ("_dmarc.ads-7.example", ["_dmarc.ads-7.example"], []),
        ("*", ["anything.at.all"], []),
        (
            "||example.org^$denyallow=sub.example.org",
            ["example.org", "x.example.org"],
            ["sub.example.org", "a.sub.example.org"],
        ),
        ("*$denyallow=com|net", ["example.org"], ["example.com", "a.net"]),
    ],
)
def test_what_a_line_blocks(line: str, blocked: list[str], free: list[str]) -> None:
    rules, (report,) = loaded(line)
    assert report.entries >= 1, report
    assert {name: said(rules, name) for name in blocked} == dict.fromkeys(blocked, BLOCKED)
    assert {name: said(rules, name) for name in free} == dict.fromkeys(free, NOTHING)


@pytest.mark.parametrize(
    "line",
    [
        *("! comment", "# comment", "[Adblock Plus 2.0]", "", "   ", "; zone comment"),
        *("127.0.0.1 localhost", "::1 ip6-localhost", "0.0.0.0 0.0.0.0"),
        *("example.org##.banner", "example.org#@#.banner"),
        *("||ads.example^$third-party", "||ads.example^$script,domain=x.org"),  # browser matters: AdGuard ignores them
        *("server=/corp.example/10.0.0.1", "||a.example/path^", "http://a.example/x", "a..b"),
        *("/(?=look)ahead/", r"/(a)\1/", "||x.example^$dnstype=BOGUS", "||x.example^$denyallow=", "||x^$client="),
        *("||x.example^$dnsrewrite=NOERROR;A;nonsense", "||x.example^$dnsrewrite", "a" * 5000, "a" * 64 + ".example"),
        *("1.2.3.4", "||\x00^", "\\", "@@", "$", "/", "//", "||", "$$$", "*.*.", "address=/", "address=//x"),
    ],
)
def test_what_is_no_entry(line: str) -> None:
    rules, _ = loaded(line)
    assert said(rules, "ads.example") == NOTHING and said(rules, "localhost") == NOTHING


def test_precedence_as_adguard_documents_it() -> None:
    basic = "||example.org^\n@@||www.example.org^"
    rules, _ = loaded(basic)
    assert (said(rules, "example.org"), said(rules, "www.example.org")) == (BLOCKED, ALLOWED)
    rules, _ = loaded("||example.org^$important\n@@||example.org^")
    assert said(rules, "example.org") == BLOCKED
    rules, _ = loaded("||example.org^$important\n@@||example.org^$important")
    assert said(rules, "example.org") == ALLOWED
    rules, _ = loaded("0.0.0.0 example.org\n@@||example.org^")
    assert said(rules, "example.org") == ALLOWED  # network rules go before hosts rules
    rules, _ = loaded("||example.org^", "@@||example.org^")
    assert said(rules, "example.org") == ALLOWED  # exceptions reach over lists
    assert outcome(rules, "example.org", lists=1).outcome is Outcome.BLOCKED  # unless theirs was not selected


def test_allow_lists_win_over_everything() -> None:
    rules, _ = loaded("||example.org^$important\n||r.org^$dnsrewrite=1.2.3.4", allow="example.org\n||r.org^")
    assert said(rules, "example.org") == ALLOWED and said(rules, "x.example.org") == BLOCKED
    assert said(rules, "r.org") == ALLOWED


def test_badfilter_voids_the_rule_of_that_text() -> None:
    rules, _ = loaded("||example.com^\n||example.com^$badfilter\n@@||a.org^\n||a.org^\n@@||a.org^$badfilter")
    assert said(rules, "example.com") == NOTHING and said(rules, "a.org") == BLOCKED
    rules, _ = loaded("||a.org^$dnstype=A\n||a.org^$dnstype=A,badfilter\n/^b\\./\n/^b\\./$badfilter")
    assert said(rules, "a.org") == NOTHING and said(rules, "b.org") == NOTHING
    rules, _ = loaded("127.0.0.1 example.org\n||example.org^$badfilter")
    assert said(rules, "example.org") == BLOCKED  # documented: not for hosts entries


def test_types() -> None:
    rules, _ = loaded("||example.org^$dnstype=AAAA")
    assert said(rules, "example.org", wire.AAAA) == BLOCKED and said(rules, "example.org") == NOTHING
    rules, _ = loaded("||example.org^$dnstype=~A|~CNAME")
    assert said(rules, "example.org", wire.MX) == BLOCKED and said(rules, "example.org", wire.A) == NOTHING
    rules, _ = loaded("||example.org^$dnstype=~TXT|aaaa")
    assert said(rules, "example.org", wire.AAAA) == BLOCKED and said(rules, "example.org", wire.MX) == NOTHING


def test_clients() -> None:
    frank, kid = Subject(device="Frank's laptop"), Subject(user="Kids", address="192.168.0.7")
    rules, _ = loaded("||a.org^$client='Frank\\'s laptop'\n||b.org^$client=~'Mary\\'s\\, and Boris\\'s'\n")
    assert said(rules, "a.org", client=frank) == BLOCKED and said(rules, "a.org", client=kid) == NOTHING
    assert said(rules, "b.org", client=Subject(device="Mary's, and Boris's")) == NOTHING
    assert said(rules, "b.org", client=kid) == BLOCKED
    rules, _ = loaded("||a.org^$client=192.168.0.0/24\n||b.org^$client=~Mom|~Dad|Kids\n||c.org^$client=127.0.0.1")
    assert said(rules, "a.org", client=kid) == BLOCKED and said(rules, "a.org", client=frank) == NOTHING
    assert said(rules, "b.org", client=kid) == BLOCKED and said(rules, "b.org", client=Subject(user="Mom")) == NOTHING
    assert said(rules, "c.org", client=Subject(address="127.0.0.1")) == BLOCKED


def test_tags() -> None:
    pc, phone = Subject(tags=frozenset({"device_pc"})), Subject(tags=frozenset({"device_phone", "os_ios"}))
    rules, _ = loaded("||a.org^$ctag=device_pc|os_ios\n||b.org^$ctag=~device_phone")
    assert [said(rules, "a.org", client=client) for client in (pc, phone, NOBODY)] == [BLOCKED, BLOCKED, NOTHING]
    assert [said(rules, "b.org", client=client) for client in (pc, phone, NOBODY)] == [BLOCKED, NOTHING, BLOCKED]


def test_rewrites() -> None:
    rules, _ = loaded(
        "||a.org^$dnsrewrite=1.2.3.4\n||a.org^$dnsrewrite=NOERROR;A;1.2.3.5\n@@||a.org^\n"
        "||b.org^$dnsrewrite=REFUSED\n||c.org^$dnsrewrite=d.org\n||e.org^$dnsrewrite=NOERROR;MX;32 example.mail\n"
        "||f.org^$dnsrewrite=NOERROR;HTTPS;32 example.com alpn=h3\n||g.org^$dnstype=AAAA,dnsrewrite=NOERROR;;"
    )
    both = outcome(rules, "a.org")
    assert both.outcome is Outcome.REWRITTEN  # before exceptions: AdGuard gives dnsrewrite the highest priority
    assert [rule.rewrite.rdata for rule in both.rewrites if rule.rewrite] == [b"\x01\x02\x03\x04", b"\x01\x02\x03\x05"]
    (refused,) = outcome(rules, "b.org").rewrites
    assert refused.rewrite is not None and refused.rewrite.rcode == wire.REFUSED
    (alias,) = outcome(rules, "c.org").rewrites
    assert alias.rewrite is not None and alias.rewrite.cname == wire.name_wire("d.org")
    (mail,) = outcome(rules, "e.org").rewrites
    assert mail.rewrite is not None and mail.rewrite.rdata == b"\x00\x20\x07example\x04mail\x00"
    (https,) = outcome(rules, "f.org").rewrites
    assert https.rewrite is not None and https.rewrite.rdata.endswith(b"\x00\x01\x00\x03\x02h3")
    assert said(rules, "g.org", wire.AAAA) == REWRITTEN and said(rules, "g.org") == NOTHING


def test_exceptions_lift_rewrites() -> None:
    two = "||a.org^$dnsrewrite=1.2.3.4\n||a.org^$dnsrewrite=1.2.3.5\n"
    rules, _ = loaded(two + "@@||a.org^$dnsrewrite=1.2.3.4")
    (left,) = outcome(rules, "a.org").rewrites
    assert left.rewrite is not None and left.rewrite.rdata == b"\x01\x02\x03\x05"
    rules, _ = loaded(two + "@@||a.org^$dnsrewrite")
    assert said(rules, "a.org") == NOTHING


def test_addresses_in_hosts_files_are_answers() -> None:
    rules, _ = loaded("10.0.0.5 nas.home\naddress=/lab.home/10.0.0.6")
    (nas,) = outcome(rules, "nas.home").rewrites
    assert nas.rewrite is not None and nas.rewrite.rdata == bytes((10, 0, 0, 5))
    assert said(rules, "x.nas.home") == NOTHING and said(rules, "x.lab.home") == REWRITTEN


ZONE = """
$TTL 300
$ORIGIN rpz.example.
@ SOA ns.example. h.example. (
   1 3600 600
   86400 300 )
  NS ns.example.
bad.com          CNAME .
*.bad.com        CNAME .      ; and below
ok.bad.com       CNAME rpz-passthru.
*.fine.org       CNAME rpz-passthru.
evil.fine.org    CNAME .
nodata.net       CNAME *.
drop.net.rpz.example. 60 IN CNAME rpz-drop.
tcp.net          CNAME rpz-tcp-only.
moved.net        CNAME garden.example.net.
local.net        A 10.0.0.1
local.net        AAAA 2001:db8::1
24.0.2.0.192.rpz-ip   CNAME .
32.9.2.0.192.rpz-ip   CNAME rpz-passthru.
48.zz.db8.2001.rpz-ip CNAME *.
32.1.0.0.127.rpz-client-ip CNAME rpz-drop.
ns.bad.rpz-nsdname CNAME .
"""


def test_a_response_policy_zone() -> None:
    rules, (report,) = loaded(ZONE)
    assert report.errors == [] and report.entries == 15
    assert [said(rules, name) for name in ("bad.com", "x.bad.com", "ok.bad.com", "www.ok.bad.com")] == [
        BLOCKED,
        BLOCKED,
        ALLOWED,
        BLOCKED,  # passthru was for the name alone
    ]
    assert [said(rules, name) for name in ("fine.org", "a.fine.org", "evil.fine.org")] == [NOTHING, ALLOWED, BLOCKED]
    found = {name: outcome(rules, name).rewrites for name in ("nodata.net", "drop.net", "tcp.net", "moved.net")}
    actions = {name: rewrites[0].rewrite for name, rewrites in found.items()}
    assert actions["drop.net"] is not None and actions["drop.net"].drop
    assert actions["tcp.net"] is not None and actions["tcp.net"].truncate
    assert actions["moved.net"] is not None and actions["moved.net"].cname == wire.name_wire("garden.example.net")
    assert len(outcome(rules, "local.net").rewrites) == 2


def test_addresses_in_answers_trigger() -> None:
    rules, _ = loaded(ZONE)

    def by_address(text: str) -> str:
        match = rules.match_address(ipaddress.ip_address(text).packed, wire.A, NOBODY)
        return NOTHING if match is None else decide(match, -1).outcome.value

    assert by_address("192.0.2.77") == BLOCKED and by_address("192.0.2.9") == ALLOWED  # the longer prefix decides
    assert by_address("2001:db8::5") == REWRITTEN and by_address("10.0.0.1") == NOTHING


def test_an_address_alone_is_looked_for_in_answers() -> None:
    rules, (report,) = loaded("192.0.2.77\n||192.0.2.78^\n2001:db8::7\n")
    assert report.entries == 3
    for text, triggers in (("192.0.2.77", True), ("192.0.2.78", True), ("2001:db8::7", True), ("192.0.2.79", False)):
        assert bool(rules.match_address(ipaddress.ip_address(text).packed, wire.A, NOBODY)) is triggers
    assert said(rules, "x192.0.2.77.example") == NOTHING


def test_a_zone_can_be_declared() -> None:
    rules, _ = loaded("bad.com CNAME .\n*.worse.com CNAME .\n", syntax="rpz")
    assert said(rules, "bad.com") == BLOCKED and said(rules, "worse.com") == NOTHING


def test_what_an_entry_is_called() -> None:
    rules, _ = loaded("||ads.example^\nonly.example\n/^x7\\./\n||t.example^$dnstype=A")
    said_by = {
        name: rules.explain(wire.name_wire(name), wire.A, NOBODY, 0)
        for name in ("a.ads.example", "only.example", "x7.org", "t.example")
    }
    assert list(said_by.values()) == ["||ads.example^", "only.example", "/^x7\\./", "||t.example^$dnstype=A"]


MIXED = "ads.example\n0.0.0.0 t.example\n||x.example^\r\n@@||ok.x.example^\n# c\nbücher.example\n"


@given(st.lists(st.integers(0, len(MIXED.encode())), max_size=8))
def test_chunking_does_not_matter(cuts: list[int]) -> None:
    data, builder = MIXED.encode(), Builder()
    parser = ListParser(builder, "l")
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        parser.feed(data[start:end])
    report, rules = parser.end(), builder.finish()
    assert (report.entries, report.errors) == (5, [])
    assert said(rules, "a.x.example") == BLOCKED and said(rules, "ok.x.example") == ALLOWED


@given(st.text(max_size=200), st.sampled_from(["auto", "rpz"]))
def test_parsing_is_total(text: str, syntax: str) -> None:
    rules, _ = loaded(text, syntax=syntax)
    rules.match(wire.name_wire("a.example"), wire.A, NOBODY)


ATOMS = [
    "||",
    "|",
    "^",
    "$",
    "@@",
    "*",
    "a.example",
    "=",
    ",",
    "~",
    "'",
    "\\",
    "/",
    "dnsrewrite",
    "client",
    "dnstype",
    "A",
]


@given(
    st.lists(st.sampled_from([*ATOMS, ";", "NOERROR", "denyallow", "ctag", "important", "badfilter", " ", "0.0.0.0"]))
)
def test_parsing_what_looks_like_rules_is_total(parts: list[str]) -> None:
    rules, _ = loaded("".join(parts))
    rules.match(wire.name_wire("a.example"), wire.A, NOBODY)


NAME = st.lists(st.sampled_from(["a", "b", "ads", "x-1"]), min_size=1, max_size=4).map(".".join)
ENTRY = st.tuples(
    st.sampled_from(["{}", "||{}^", "*.{}", "@@||{}^", "||{}^$important", "@@||{}^$important", "|{}^"]), NAME
)


@given(
    st.lists(st.lists(ENTRY, max_size=12), min_size=1, max_size=3),
    st.lists(NAME, min_size=1, max_size=10),
    st.integers(0, 7),
)
def test_a_naive_reading_agrees(lists: list[list[tuple[str, str]]], names: list[str], selected: int) -> None:
    rules, _ = loaded(*("\n".join(form.format(name) for form, name in entries) for entries in lists))
    for name in names:
        assert outcome(rules, name, lists=selected).outcome.value == naive(lists, name, selected)


def naive(lists: list[list[tuple[str, str]]], name: str, selected: int) -> str:
    hits = set()
    for index, entries in enumerate(lists):
        for form, entry in entries:
            below = name.endswith("." + entry) and form not in ("{}", "|{}^")
            if selected >> index & 1 and (name == entry or below):
                hits.add(("@@" if form.startswith("@@") else "") + ("!" if "important" in form else ""))
    for strength, result in (("@@!", ALLOWED), ("!", BLOCKED), ("@@", ALLOWED), ("", BLOCKED)):
        if strength in hits:
            return result
    return NOTHING


@given(st.lists(st.text("abc.-", max_size=12), max_size=400))
def test_a_growing_table_loses_nothing(names: list[str]) -> None:
    builder = Builder()
    parser = ListParser(builder, "l")
    parser.feed("\n".join(f"n{number}.{name}" for number, name in enumerate(names * 4)).encode())
    parser.end()
    rules = builder.finish()
    for number, name in enumerate(names * 4):
        if host_wire(f"n{number}.{name}".encode()) is not None:
            assert said(rules, f"n{number}.{name}") == BLOCKED


def test_patterns_cost_linear_time() -> None:
    rules, _ = loaded("/(a+)+$/\n/(.*)*b/\n" + "\n".join(f"/^x{n}.*[0-9]+y/" for n in range(1000)))
    started = time.perf_counter()
    said(rules, ".".join(["a" * 60] * 4))
    assert time.perf_counter() - started < 0.05
