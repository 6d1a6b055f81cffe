"""Who, from where, when."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core.errors import ConfigError
from warren.fabric.core.selectors import Networks, Subject, When, WhenMatcher, Who, WhoMatcher

KID = Subject(device="tablet", user="mia", groups=frozenset({"kids"}), tags=frozenset({"os_ios"}), address="10.1.2.3")


@pytest.mark.parametrize(
    ("who", "meant"),
    [
        (Who(), True),
        (Who(users=("mia", "ben")), True),
        (Who(users=("ben",)), False),
        (Who(groups=("kids",), devices=("tablet",)), True),
        (Who(groups=("kids",), devices=("phone",)), False),  # every field has to hold
        (Who(tags=("os_ios",)), True),
        (Who(networks=("10.1.0.0/16",)), True),
        (Who(networks=("10.2.0.0/16", "fd00::/8")), False),
    ],
)
def test_who(who: Who, meant: bool) -> None:
    assert WhoMatcher(who).matches(KID) is meant


def test_what_is_not_known_matches_nothing() -> None:
    assert not WhoMatcher(Who(networks=("0.0.0.0/0",))).matches(Subject())
    assert not WhoMatcher(Who(users=("mia",))).matches(Subject())


@given(st.lists(st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), max_size=8), st.ip_addresses())
def test_networks_as_the_library_sees_them(
    cidrs: list[tuple[ipaddress.IPv4Address, int]], address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    texts = [f"{network}/{length}" for network, length in cidrs]
    expected = any(address in ipaddress.ip_network(text, strict=False) for text in texts)
    assert (str(address) in Networks(texts)) == expected


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


SCHOOL = When(days=("mon", "fri"), start="08:00", end="15:00", zone="Europe/Berlin")
NIGHT = When(days=("fri",), start="22:00", end="06:00", zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("when", "moment", "holds"),
    [
        (SCHOOL, "2026-11-20T08:00+01:00", True),  # a Friday
        (SCHOOL, "2026-11-20T07:59+01:00", False),
        (SCHOOL, "2026-11-20T15:00+01:00", False),
        (SCHOOL, "2026-11-19T10:00+01:00", False),
        (SCHOOL, "2026-07-03T06:30+00:00", True),  # summer time: 08:30 there
        (NIGHT, "2026-11-20T23:00+01:00", True),
        (NIGHT, "2026-11-21T05:59+01:00", True),  # Friday's night, on Saturday
        (NIGHT, "2026-11-20T05:00+01:00", False),  # Thursday's
        (When(), "2026-11-20T05:00+01:00", True),
        (When(start="06:00", end="06:00"), "2026-11-20T05:00+00:00", True),  # a whole day
    ],
)
def test_when(when: When, moment: str, holds: bool) -> None:
    assert WhenMatcher(when).holds(at(moment)) is holds


@pytest.mark.parametrize(
    "build",
    [
        lambda: WhenMatcher(When(zone="Mars/Base")),
        lambda: WhenMatcher(When(zone="../etc/passwd")),
        lambda: WhenMatcher(When(start="8")),
        lambda: WhenMatcher(When(end="24:01")),
        lambda: Networks(["10.0.0.0/33"]),
        lambda: WhoMatcher(Who(networks=("here",))),
    ],
)
def test_wrong_configuration_is_one_line(build: object) -> None:
    with pytest.raises(ConfigError) as caught:
        build()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
