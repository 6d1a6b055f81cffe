"""Synthetic addresses: same name same address, no other name's within a day, a file that stays small."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from warren.agent.names import (
    HOLD_S,
    HOSTS6,
    RANGES,
    RESERVED,
    Full,
    NameJournal,
    Names,
    Owner,
    choose_host6,
    choose_range,
)
from warren.fabric.core.errors import ConfigError

SMALL = IPv4Network("198.18.0.0/27")  # 15 names
KEY = b"k" * 16
DAY = 24 * 3600.0


def address(names: Names | NameJournal, name: str, now: float = 0.0, network: str = "default") -> IPv4Address:
    got = names.address_of(network, name, now)
    assert isinstance(got, IPv4Address)
    return got


def test_same_name_same_address_also_without_a_journal() -> None:
    first, second = Names(KEY, RANGES[0]), Names(KEY, RANGES[0])
    given_out = [address(first, f"host{number}.corp.internal") for number in range(200)]
    assert len(set(given_out)) == 200
    assert [address(second, f"HOST{number}.corp.internal.") for number in range(200)] == given_out
    assert all(got in RANGES[0] and got >= RANGES[0][RESERVED] for got in given_out)
    assert first.owner_of(given_out[3].packed, 0.0) == Owner("default", "host3.corp.internal")
    assert Names(b"x" * 16, RANGES[0]).address_of("default", "host0.corp.internal", 0) != given_out[0]
    assert address(first, "host0.corp.internal", network="other") != given_out[0]


def test_full_until_a_day_after_the_last_use() -> None:
    names = Names(KEY, SMALL)
    used = {address(names, f"n{number}", float(number)) for number in range(15)}
    assert len(used) == 15
    full = names.address_of("default", "late", 20.0)
    assert isinstance(full, Full)
    assert full.until >= DAY
    assert isinstance(names.address_of("default", "late", full.until - 1), Full)
    assert address(names, "n0", full.until) in used  # its own address, whenever
    assert address(names, "late", full.until + 1) in used
    assert names.host_address == SMALL[1]
    assert names.resolver_address == SMALL[2]


def test_an_address_of_nobody_and_a_range_that_is_none() -> None:
    names = Names(KEY, SMALL)
    assert names.owner_of(IPv4Address("198.18.0.20"), 0.0) is None
    assert names.owner_of(IPv4Address("1.1.1.1"), 0.0) is None
    with pytest.raises(ConfigError, match="/12 to /28"):
        Names(KEY, IPv4Network("10.0.0.0/30"))


class AgainstAModel(RuleBasedStateMachine):
    """Any order of answers, uses and waits: no name gets another's address within a day of the last use."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Names(KEY, SMALL)
        self.now = 1e9
        self.last: dict[IPv4Address, tuple[str, float]] = {}

    @rule(number=st.integers(0, 40))
    def answer(self, number: int) -> None:
        name = f"n{number}"
        got = self.names.address_of("default", name, self.now)
        if isinstance(got, Full):
            assert len(self.last) == 15
            assert got.until > self.now
            return
        before = self.last.get(got)
        assert before is None or before[0] == name or self.now - before[1] >= HOLD_S
        self.last[got] = (name, max(self.now, before[1] if before and before[0] == name else 0.0))

    @rule(pick=st.integers(0, 30))
    def use(self, pick: int) -> None:
        at = SMALL[pick]
        owner = self.names.owner_of(at, self.now)
        assert (owner.name if owner else None) == (self.last[at][0] if at in self.last else None)
        if owner:
            self.last[at] = (owner.name, max(self.now, self.last[at][1]))

    @rule(seconds=st.sampled_from([-3600.0, 1.0, 3600.0, DAY / 2, DAY, 2 * DAY]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert len(self.names) <= 15


TestAgainstAModel = AgainstAModel.TestCase


def test_the_range_is_the_first_that_collides_with_nothing() -> None:
    def chosen(*taken: str) -> str:
        return str(choose_range([IPv4Network(network) for network in taken]))

    assert chosen("192.168.0.0/24", "10.0.0.0/24") == "100.80.0.0/16"
    assert chosen("100.80.3.4/32") == "198.18.0.0/16"
    assert chosen("100.101.102.103/32") == "198.18.0.0/16"  # somebody's address out of 100.64.0.0/10
    assert chosen("100.64.0.0/10", "198.18.0.0/15") == "10.211.0.0/16"
    assert chosen("100.64.0.0/10", "198.18.0.0/15", "10.0.0.0/8") == "None"


def test_the_journal_remembers(tmp_path: Path) -> None:
    path = tmp_path / "names"
    journal = NameJournal.open(path, [])
    first = address(journal, "payroll.internal", 1000.0)
    assert path.stat().st_mode & 0o777 == 0o600
    journal.close()
    again = NameJournal.open(path, [])
    assert again.owner_of(first.packed, 2000.0) == Owner("default", "payroll.internal")
    assert address(again, "payroll.internal", 2000.0) == first
    again.close()


def test_the_range_stays_until_it_collides_and_the_key_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "names"
    tailscale = IPv4Network("100.99.1.1/32")
    journal = NameJournal.open(path, [tailscale])
    second = address(journal, "a")
    assert second in RANGES[1]
    journal.close()
    assert address(NameJournal.open(path, []), "a") == second
    moved = NameJournal.open(path, [RANGES[1]])
    assert address(moved, "a") in RANGES[0]
    assert address(NameJournal.open(path, [tailscale]), "a") == second
    with pytest.raises(ConfigError, match="in use"):
        NameJournal.open(path, RANGES)


def test_the_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "names"
    journal = NameJournal.open(path, [], [SMALL])
    for hour in range(4000):
        address(journal, f"n{hour % 3}", hour * 3601.0)
    assert len(path.read_bytes().splitlines()) < 1100
    size = path.stat().st_size
    for second in range(100):
        address(journal, "n0", 4000 * 3601.0 + second)
    assert path.stat().st_size - size < 100  # one line an hour
    journal.close()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_file_can_be_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-names"
    head = b'{"key": "00", "range": "198.18.0.0/27"}\n'
    for content in (data, head + data, head + b'[17, "d", "n", 5]\n' + data):
        path.write_bytes(content)
        NameJournal.open(path, [], [SMALL]).close()


def test_the_own_ipv6_address_avoids_what_the_host_has() -> None:
    assert choose_host6([]) == HOSTS6[0]
    assert choose_host6([IPv6Network("fd77::/16"), IPv4Network("10.0.0.0/8")]) == HOSTS6[1]
    assert choose_host6([IPv6Network("fc00::/7")]) is None
