"""Real lists, as uBlock Origin's Debian package ships them, and the same names in every other syntax."""

from __future__ import annotations

import ipaddress
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.lists import ListParser, Report
from warren.dnsfilter.core.rules import Outcome, RuleSet, decide
from warren.dnsfilter.core.verdict import Client
from warren.fabric.core import dnswire as wire

ASSETS = Path("/usr/share/chromium/extensions/ublock-origin/assets/thirdparties")
LISTS = {
    "easylist/easylist.txt": 40_000,
    "easylist/easyprivacy.txt": 40_000,
    "urlhaus-filter/urlhaus-filter-online.txt": 1_000,
}
"""At least so many entries."""
NOBODY = Client()

pytestmark = pytest.mark.skipif(
    not ASSETS.exists() and not os.environ.get("WARREN_REQUIRE_LAB"), reason="needs webext-ublock-origin-chromium"
)


@pytest.fixture(scope="module", autouse=True)
def no_fault_in_any_log() -> Iterator[None]:
    """In place of the one for the office."""
    yield


def load(text: bytes, syntax: str = "auto") -> tuple[RuleSet, Report]:
    builder = Builder()
    parser = ListParser(builder, "list", "block", syntax)  # type: ignore[arg-type]
    for at in range(0, len(text), 1 << 16):
        parser.feed(text[at : at + (1 << 16)])
    report = parser.end()
    return builder.finish(), report


def blocks(rules: RuleSet, name: str) -> bool:
    match = rules.match(wire.name_wire(name), wire.A, NOBODY)
    return match is not None and decide(match, -1).outcome is Outcome.BLOCKED


def whole_names(text: str) -> list[str]:
    """What a list says of whole names without conditions, read in the plainest way."""
    lines = (line.strip() for line in text.splitlines())
    names = [line[2:-1] for line in lines if line.startswith("||") and line.endswith("^")]
    return [name for name in names if name.replace("-", "").replace(".", "").replace("_", "").isalnum() and "." in name]


@pytest.mark.parametrize("name", list(LISTS))
def test_a_real_list(name: str) -> None:
    text = (ASSETS / name).read_bytes()
    rules, report = load(text)
    least = LISTS[name]
    assert report.entries >= least and report.lines == text.count(b"\n") + 1
    for listed in whole_names(text.decode())[::50]:
        if not listed.rpartition(".")[2].isdecimal():
            assert blocks(rules, listed) and blocks(rules, f"x.{listed}"), listed
    assert not blocks(rules, "www.debian.org") and not blocks(rules, "example.org")


def test_addresses_of_a_real_list_are_looked_for_in_answers() -> None:
    text = (ASSETS / "urlhaus-filter/urlhaus-filter-online.txt").read_text()
    rules, _ = load(text.encode())
    found = 0
    for line in text.splitlines():
        try:
            packed = ipaddress.IPv4Address(line).packed
        except ValueError:
            continue
        found += 1
        assert rules.match_address(packed, wire.A, NOBODY) is not None, line
    assert found > 500


SYNTAXES: dict[str, tuple[Callable[[str], str], bool]] = {
    "domains": (lambda name: name, False),
    "hosts": (lambda name: f"0.0.0.0 {name}", False),
    "hosts with ::": (lambda name: f":: {name} # why", False),
    "wildcards": (lambda name: f"*.{name}", True),
    "dnsmasq address": (lambda name: f"address=/{name}/0.0.0.0", True),
    "dnsmasq local": (lambda name: f"local=/{name}/", True),
    "adblock": (lambda name: f"||{name}^", True),
    "rpz": (lambda name: f"{name} CNAME .\n*.{name} CNAME .", True),
}
"""How a name is written, and whether that reaches the names below it."""


@pytest.mark.parametrize("syntax", list(SYNTAXES))
def test_the_same_names_in_every_syntax(syntax: str) -> None:
    write, below = SYNTAXES[syntax]
    text = (ASSETS / "easylist/easyprivacy.txt").read_text()
    names = [name for name in whole_names(text) if not name.rpartition(".")[2].isdecimal()]
    head = "$TTL 60\n$ORIGIN rpz.\n" if syntax == "rpz" else ""
    rules, report = load((head + "\n".join(map(write, names)) + "\n").encode())
    assert report.entries == len(names) * (2 if syntax == "rpz" else 1) and not report.errors
    listed = set(names)
    for name in random.Random(7).sample(names, 2000):
        assert blocks(rules, name)
        under = f"not-listed.{name}"
        parent_listed = any(under.endswith(f".{other}") for other in _parents(under) if other in listed)
        assert blocks(rules, under) is (below and parent_listed)


def _parents(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[at:]) for at in range(1, len(labels))]
