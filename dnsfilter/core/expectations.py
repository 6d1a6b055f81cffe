"""What the administrator expects of the policy, beside its rules: checked before a policy is put in use."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from warren.dnsfilter.core.records import type_of
from warren.dnsfilter.core.stages.filtering import Filter
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError
from warren.fabric.core.selectors import Subject

Expected = Literal["allow", "block", "override", "safe-search", "resolver"]
_NOON: Final = "2026-06-17T12:00:00+00:00"


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query, and the action that it should come to. What no rule matches comes to `allow`."""

    name: str
    expect: Expected
    type: str = "A"
    device: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    address: str = ""
    at: str = _NOON
    """ISO 8601, with an offset."""
    rule: str = ""
    """The rule that should decide; empty: whichever."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one, in words."""

    holds: bool
    text: str


def check(expectations: Sequence[Expectation], filter_: Filter) -> list[Outcome]:
    """Try each against the compiled policy. ConfigError for one that says nothing."""
    return [_check(expectation, filter_) for expectation in expectations]


def _check(expectation: Expectation, filter_: Filter) -> Outcome:
    try:
        name = wire.name_wire(expectation.name)
        at = datetime.datetime.fromisoformat(expectation.at)
    except ValueError as error:
        raise ConfigError(f"expectations: {expectation.name}: {error}") from None
    kind = type_of(expectation.type)
    if kind is None:
        raise ConfigError(f"expectations: {expectation.name}: {expectation.type!r} is no query type")
    client = Subject(
        expectation.device,
        expectation.user,
        frozenset(expectation.groups),
        frozenset(expectation.tags),
        expectation.address,
    )
    match = filter_.rules.match(name, kind, client)
    ruling = filter_.policy.ruling(name, kind, client, match, at.timestamp())
    action, rule = (ruling.rule.action, ruling.rule.name) if ruling.rule is not None else ("allow", "")
    holds = action == expectation.expect and expectation.rule in ("", rule)
    who = expectation.device or expectation.user or ", ".join(expectation.groups) or expectation.address or "anybody"
    wanted = expectation.expect + (f" by {expectation.rule}" if expectation.rule else "")
    came = f"{action} by {rule}" if rule else f"{action}, no rule matches"
    return Outcome(holds, f"{expectation.name} {expectation.type} for {who}: expected {wanted}, is {came}")
