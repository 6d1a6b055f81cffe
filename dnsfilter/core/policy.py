"""The policy: an ordered list of rules, the first that matches decides. Configuration, and its compiled form.

Who asks and at what time is settled once per client and minute (`View`); what is left for a query are its name, its
type and what the lists say about it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from warren.dnsfilter.core.lists import Kind
from warren.dnsfilter.core.records import type_of
from warren.dnsfilter.core.rules import Decision, Match, Outcome, decide
from warren.dnsfilter.core.safesearch import safe_name
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError
from warren.fabric.core.selectors import Subject, When, WhenMatcher, Who, WhoMatcher

Answer = Literal["nxdomain", "zero", "refused"]
"""What a blocked name gets: no such name; 0.0.0.0 and ::; REFUSED."""
VIEWS_MAX: Final = 4096
"""Clients whose view is kept: some 500 bytes each."""
BLOCK_TTL: Final = 60
"""A list or rule may change: nobody should remember a block for long."""


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer instead: addresses, or the name to resolve instead."""

    addresses: tuple[str, ...] = ()
    cname: str = ""
    ttl: int = 300


class PolicyRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule. All selectors that are given must hold; a rule without any matches everything."""

    name: str
    action: Literal["allow", "block", "override", "safe-search", "resolver"]
    who: Who = Who()
    when: When | None = None
    names: tuple[str, ...] = ()
    """`example.org` is that name, `*.example.org` that name and all below."""
    categories: tuple[str, ...] = ()
    """Categories of lists that have the name."""
    types: tuple[str, ...] = ()
    answer: Answer | None = None
    override: Override | None = None
    resolver: str = ""
    """A group of upstreams."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. What no rule matches is allowed."""

    rules: tuple[PolicyRule, ...] = ()
    answer: Answer = "nxdomain"
    rebinding: bool = True
    """Refuse answers of public upstreams that point at private addresses."""
    rebinding_except: tuple[str, ...] = ()
    """Names for which they may; as in a rule's `names`."""


class ListInfo(msgspec.Struct, frozen=True):
    """What the policy has to know of a list."""

    name: str
    kind: Kind = "block"
    categories: tuple[str, ...] = ()
    """An allow list without any counts for every rule."""


class Names:
    """Names and wildcards, with the numbers that they stand for."""

    def __init__(self) -> None:
        self._own: dict[bytes, list[int]] = {}
        self._tree: dict[bytes, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._own or self._tree)

    def add(self, text: str, number: int) -> None:
        tree = text == "*" or text.startswith("*.")
        try:
            name = wire.name_wire(text[2:] if tree else text)
        except ValueError as error:
            raise ConfigError(f"{error}; give a name or a wildcard, as in *.example.org") from None
        (self._tree if tree else self._own).setdefault(name, []).append(number)

    @property
    def known(self) -> frozenset[bytes]:
        """All that were added, wildcards by the name that they begin at."""
        return frozenset((*self._own, *self._tree))

    def find(self, name: bytes) -> list[int]:
        """The numbers of all that match, in no order."""
        found = list(self._own.get(name, ()))
        if self._tree:
            at = 0
            while True:
                suffix = name[at:]
                if suffix in self._tree:
                    found += self._tree[suffix]
                if not name[at]:
                    break
                at += 1 + name[at]
        return found


class _Compiled(msgspec.Struct, frozen=True):
    """A rule, with its selectors ready."""

    rule: PolicyRule
    who: WhoMatcher
    when: WhenMatcher | None
    types: frozenset[int]
    lists: int
    named: bool
    cname: bytes
    addresses: tuple[bytes, ...]


class View(msgspec.Struct, frozen=True):
    """The rules that can match for one client at one time, by number."""

    active: frozenset[int]
    open: tuple[int, ...]
    """Neither names nor categories."""
    listed: tuple[tuple[int, int], ...]
    """(number, mask of lists), without names."""
    since: float
    until: float
    """Seconds since 1970; a clock that was set back ends it too."""


class Ruling(msgspec.Struct, frozen=True):
    """What the policy says about a query."""

    rule: PolicyRule | None = None
    decision: Decision | None = None
    """What the lists said, if the rule is about lists."""
    target: bytes = b""
    """Wire name to resolve instead."""
    addresses: tuple[bytes, ...] = ()


_NO_RULE: Final = Ruling()


class CompiledPolicy:
    """A policy over a set of lists. Never changed: a new one takes its place."""

    def __init__(self, policy: Policy, lists: Sequence[ListInfo] = (), groups: Sequence[str] = ()) -> None:
        self.policy = policy
        self._names = Names()
        self._rules: list[_Compiled] = []
        self._views: dict[Subject, View] = {}
        self._lists = lists
        self._always = 0
        for index, info in enumerate(lists):
            if info.kind == "allow" and not info.categories:
                self._always |= 1 << index
        for number, rule in enumerate(policy.rules):
            try:
                self._rules.append(self._compile(number, rule, groups))
            except ConfigError as error:
                raise ConfigError(f"dns.policy: rule {rule.name!r}: {error}") from None
        self._timed = any(compiled.when is not None for compiled in self._rules)
        self.named = self._names.known
        """Suffixes of which rules speak by name; other names differ by what lists and safe search say of them."""
        self._rebinding_except = Names()
        for text in policy.rebinding_except:
            self._rebinding_except.add(text, 0)

    def ruling(self, name: bytes, kind: int, client: Subject, match: Match | None, wall: float) -> Ruling:
        """The first rule that matches, and what it comes to."""
        if not self._rules:
            return _NO_RULE
        view = self._views.get(client)
        if view is None or not view.since <= wall < view.until:
            view = self._view(client, wall)
        candidates: list[int] = []
        if self._names and (found := self._names.find(name)):
            candidates = [number for number in found if number in view.active]
        if match is not None and view.listed:
            held = match.any
            candidates += [number for number, lists in view.listed if lists & held]
        if candidates:
            candidates.extend(view.open)
            candidates.sort()
        for number in candidates or view.open:
            ruling = self._try(self._rules[number], name, kind, match)
            if ruling is not None:
                return ruling
        return _NO_RULE

    def address_ruling(self, match: Match, client: Subject, wall: float) -> Ruling:
        """The first blocking rule about lists that one address in an answer triggers."""
        view = self._views.get(client) or self._view(client, wall)
        for number, lists in view.listed:
            compiled = self._rules[number]
            if compiled.rule.action == "block" and lists & match.any and not compiled.types:
                decision = decide(match, lists, self._always)
                if decision.outcome in (Outcome.BLOCKED, Outcome.REWRITTEN):
                    return Ruling(compiled.rule, decision)
        return _NO_RULE

    def may_rebind(self, name: bytes) -> bool:
        """Whether answers for that name may point at private addresses."""
        return not self.policy.rebinding or bool(self._rebinding_except.find(name))

    def list_name(self, index: int) -> str:
        return self._lists[index].name if 0 <= index < len(self._lists) else ""

    def _try(self, compiled: _Compiled, name: bytes, kind: int, match: Match | None) -> Ruling | None:
        rule = compiled.rule
        if compiled.types and kind not in compiled.types:
            return None
        decision = None
        if rule.categories:
            if match is None:
                return None
            always = 0 if rule.action == "allow" else self._always
            decision = decide(match, compiled.lists, always)
            if decision.outcome is Outcome.NOTHING:
                return None
            if decision.outcome is Outcome.ALLOWED and rule.action != "allow":
                return None
        if rule.action == "safe-search":
            target = safe_name(name)
            return Ruling(rule, decision, target=target) if target else None
        return Ruling(rule, decision, compiled.cname, compiled.addresses)

    def _view(self, client: Subject, wall: float) -> View:
        active = [
            number
            for number, compiled in enumerate(self._rules)
            if compiled.who.matches(client) and (compiled.when is None or compiled.when.holds(wall))
        ]
        unnamed = [number for number in active if not self._rules[number].named]
        view = View(
            frozenset(active),
            tuple(number for number in unnamed if not self._rules[number].rule.categories),
            tuple((number, self._rules[number].lists) for number in unnamed if self._rules[number].rule.categories),
            wall - wall % 60 if self._timed else 0.0,
            wall - wall % 60 + 60 if self._timed else float("inf"),
        )
        if len(self._views) >= VIEWS_MAX:
            self._views.clear()
        self._views[client] = view
        return view

    def _compile(self, number: int, rule: PolicyRule, groups: Sequence[str]) -> _Compiled:
        types = frozenset(_type(text) for text in rule.types)
        for text in rule.names:
            self._names.add(text, number)
        cname, addresses = _override(rule)
        if (rule.action == "resolver") != bool(rule.resolver):
            raise ConfigError(
                "the action resolver needs `resolver`, the name of a group of upstreams, and no other does"
            )
        if rule.resolver and rule.resolver not in groups:
            raise ConfigError(f"{rule.resolver!r} is no group of upstreams; there are {', '.join(groups) or 'none'}")
        if rule.answer is not None and rule.action != "block":
            raise ConfigError("`answer` is for the action block")
        return _Compiled(
            rule,
            WhoMatcher(rule.who),
            None if rule.when is None else WhenMatcher(rule.when),
            types,
            self._mask(rule.categories),
            bool(rule.names),
            cname,
            addresses,
        )

    def _mask(self, categories: Sequence[str]) -> int:
        known = {category for info in self._lists for category in info.categories}
        for category in categories:
            if category not in known:
                raise ConfigError(
                    f"{category!r} is no category of a list; there are {', '.join(sorted(known)) or 'none'}"
                )
        mask = 0
        for index, info in enumerate(self._lists):
            if not set(info.categories).isdisjoint(categories):
                mask |= 1 << index
        return mask


def _type(text: str) -> int:
    kind = type_of(text)
    if kind is None:
        raise ConfigError(f"{text!r} is no query type; give one as in A, AAAA, HTTPS or TYPE65")
    return kind


def _override(rule: PolicyRule) -> tuple[bytes, tuple[bytes, ...]]:
    override = rule.override
    if (rule.action == "override") != (override is not None):
        raise ConfigError("the action override needs `override` with addresses or a cname, and no other does")
    if override is None:
        return b"", ()
    if bool(override.cname) == bool(override.addresses):
        raise ConfigError("`override` takes either addresses or a cname")
    try:
        cname = wire.name_wire(override.cname) if override.cname else b""
        return cname, tuple(ipaddress.ip_address(text).packed for text in override.addresses)
    except ValueError as error:
        raise ConfigError(f"override: {error}") from None
