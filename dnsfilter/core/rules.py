"""The compiled rule set: which lists have something to say about a name.

A plain entry ("this name", "this name and all below") is a 64-bit fingerprint in an open-addressing table: 10 bytes at
load 1, whatever the name's length, so a million of them are some 20 MiB and a second set fits beside the first while it
is built. The fingerprint is Python's own keyed hash (SipHash), so nobody outside can make two names collide.
Entries with conditions are `Rule` objects by name, or patterns behind one linear-time automaton (RE2).

A look-up walks the suffixes of the wire name and gathers one bit per list and class (`Match`). Which of the lists count
is up to whoever asks: `decide` is given their mask and applies the precedence of docs/dns.md.
"""

from __future__ import annotations

import enum
import ipaddress
from array import array
from collections.abc import Collection, Sequence
from typing import Final, Protocol

import msgspec

from warren.dnsfilter.core.walks import Walks
from warren.fabric.core import dnswire as wire
from warren.fabric.core.selectors import Networks, Subject

MEMO_MAX: Final = 8192
"""Names whose pattern matches are remembered (RE2 costs 8 µs a name over 2,000 patterns, a look-up 0.1)."""


class Scope(enum.IntFlag):
    """How far a plain entry reaches."""

    SELF = 1
    BELOW = 2
    TREE = 3


class Klass(enum.IntEnum):
    """What an entry says; the precedence among them is in `decide`."""

    BLOCK = 0
    ALLOW = 1
    """An exception in a block list (`@@`)."""
    IMPORTANT = 2
    """A block that exceptions do not lift (`$important`)."""
    SPARED = 3
    """An exception that lifts even that (`@@...$important`)."""
    TRUSTED = 4
    """Whatever stands in an allow list."""


class Rewrite(msgspec.Struct, frozen=True):
    """An answer that an entry dictates. A code other than NOERROR wins over records, a CNAME over other records."""

    rcode: int = wire.NOERROR
    cname: bytes = b""
    """Wire name that is resolved instead."""
    garden: bool = False
    """RPZ: with the name that was asked for in front of it."""
    type: int = 0
    rdata: bytes = b""
    drop: bool = False
    """RPZ: no answer at all."""
    truncate: bool = False
    """RPZ: over UDP an empty answer with TC."""


LIFT_ALL: Final = Rewrite(rcode=-1)


class Clients(msgspec.Struct, frozen=True):
    """Names and addresses of clients, for `$client`."""

    names: frozenset[str] = frozenset()
    networks: Networks | None = None

    def has(self, client: Subject) -> bool:
        if not self.names.isdisjoint((client.device, client.user)) and (client.device or client.user):
            return True
        return self.networks is not None and client.address in self.networks


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """An entry with conditions, or with an answer of its own. All conditions that are given must hold."""

    list: int
    klass: Klass
    text: str
    """As it stands in the list."""
    scope: Scope = Scope.TREE
    types: frozenset[int] = frozenset()
    not_types: frozenset[int] = frozenset()
    denyallow: frozenset[bytes] = frozenset()
    """Wire names: the rule does not apply to them and what is below."""
    clients: Clients | None = None
    not_clients: Clients | None = None
    tags: frozenset[str] = frozenset()
    not_tags: frozenset[str] = frozenset()
    rewrite: Rewrite | None = None
    lifts: Rewrite | None = None
    """An exception that lifts dictated answers: equal ones, or all (`LIFT_ALL`)."""

    def applies(self, name: bytes, kind: int, client: Subject) -> bool:
        """Whether the conditions hold; that the name matches is known."""
        if (self.types and kind not in self.types) or kind in self.not_types:
            return False
        if self.denyallow and any(suffix in self.denyallow for suffix in wire.suffixes(name)):
            return False
        if self.not_clients is not None and self.not_clients.has(client):
            return False
        if self.clients is not None and not self.clients.has(client):
            return False
        if not self.not_tags.isdisjoint(client.tags):
            return False
        return not self.tags or not self.tags.isdisjoint(client.tags)


Masks = tuple[int, int, int, int, int]
"""One bit a list, one mask a `Klass`."""
Addresses = dict[tuple[int, int], dict[int, tuple[Rule, ...]]]
"""(32 or 128, bits cut off) → what is left of the address → rules."""


class Match(msgspec.Struct, gc=False):
    """What lists say about a name: one bit a list (bit n: list n), one mask a class."""

    masks: Masks
    rules: tuple[Rule, ...] = ()
    """Those that applied and carry an answer, or lift one."""

    @property
    def any(self) -> int:
        block, allow, important, spared, trusted = self.masks
        mask = block | allow | important | spared | trusted
        for rule in self.rules:
            mask |= 1 << rule.list
        return mask


class Outcome(enum.Enum):
    """What a selection of lists comes to."""

    NOTHING = "nothing"
    ALLOWED = "allowed"
    BLOCKED = "blocked"
    REWRITTEN = "rewritten"


class Decision(msgspec.Struct, frozen=True):
    """The outcome, and the list that it comes from (-1: none)."""

    outcome: Outcome
    list: int = -1
    rewrites: tuple[Rule, ...] = ()


_NOTHING: Final = Decision(Outcome.NOTHING)


def decide(match: Match, lists: int, always: int = 0) -> Decision:
    """Precedence among the lists of that mask; allow lists in `always` count whichever were selected.

    Allow lists; then dictated answers that no exception lifts; then `@@$important`, `$important`, `@@`, block.
    """
    block, allow, important, spared, trusted = match.masks
    if found := trusted & (lists | always):
        return Decision(Outcome.ALLOWED, _lowest(found))
    if match.rules and (rewrites := _standing(match.rules, lists)):
        return Decision(Outcome.REWRITTEN, rewrites[0].list, rewrites)
    if found := spared & lists:
        return Decision(Outcome.ALLOWED, _lowest(found))
    if found := important & lists:
        return Decision(Outcome.BLOCKED, _lowest(found))
    if found := allow & lists:
        return Decision(Outcome.ALLOWED, _lowest(found))
    if found := block & lists:
        return Decision(Outcome.BLOCKED, _lowest(found))
    return _NOTHING


def _standing(rules: Sequence[Rule], lists: int) -> tuple[Rule, ...]:
    chosen = [rule for rule in rules if lists >> rule.list & 1]
    lifts = [rule.lifts for rule in chosen if rule.lifts is not None]
    if LIFT_ALL in lifts:
        return ()
    return tuple(rule for rule in chosen if rule.rewrite is not None and rule.rewrite not in lifts)


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


class Combo(msgspec.Struct, frozen=True):
    """What all lists together say of one plain name: masks by class for the name itself, and for names below."""

    own: Masks = (0, 0, 0, 0, 0)
    below: Masks = (0, 0, 0, 0, 0)
    parent: bool = False
    """There may be plain names below it; if not, there are none."""

    def with_entry(self, list_index: int, scope: Scope, klass: Klass) -> Combo:
        bit = 1 << list_index
        own, below = list(self.own), list(self.below)
        if scope & Scope.SELF:
            own[klass] |= bit
        if scope & Scope.BELOW:
            below[klass] |= bit
        return Combo(tuple(own), tuple(below))  # type: ignore[arg-type]

    def without(self, klass: Klass) -> Combo:
        """Without whole-tree entries of that class (`$badfilter`)."""
        both = self.own[klass] & self.below[klass]
        own, below = list(self.own), list(self.below)
        own[klass] &= ~both
        below[klass] &= ~both
        return Combo(tuple(own), tuple(below))  # type: ignore[arg-type]


class Patterns(Protocol):
    """Patterns behind one automaton."""

    def match(self, text: str) -> Sequence[Rule]:
        """The rules whose pattern matches the name in presentation form."""

    def __len__(self) -> int: ...


class RuleSet:
    """All lists, compiled. Never changed: a new one is built aside and takes its place."""

    def __init__(
        self,
        keys: array[int],
        values: array[int],
        combos: list[Combo],
        special: dict[bytes, tuple[Rule, ...]],
        patterns: Patterns,
        names: Sequence[str],
        shortest: int = 1,
        zones: int = 0,
        addresses: Addresses | None = None,
        clients: Addresses | None = None,
    ) -> None:
        """`keys`: fingerprints, 0 for free, a power of two of them; `values`: index into `combos` for each key.

        `shortest`: bytes of the shortest plain name; suffixes below it ("com") need no look-up. `zones`: mask of the
        lists in which the most exact name decides (RPZ). `addresses`, `clients`: what is triggered by an address in an
        answer, and by that of the client.
        """
        self._keys = keys
        self._values = values
        self._own = [combo.own for combo in combos]
        self._below = [combo.below for combo in combos]
        self._parent = [combo.parent for combo in combos]
        self._mask = len(keys) - 1
        self._special = special
        self._patterns = patterns
        self.shortest = shortest
        self._zones = zones
        self._addresses = addresses or {}
        self._clients = clients or {}
        self._memo: dict[bytes, Sequence[Rule]] = {}
        self._client_memo: dict[str, list[tuple[int, Rule]]] = {}
        self.names = tuple(names)
        """Names of the lists, by index."""

    def match(self, name: bytes, kind: int, client: Subject) -> Match | None:
        """What lists say about a wire name; None: nothing. 1 µs for a name of three labels."""
        keys, mask = self._keys, self._mask
        found: list[tuple[int, Masks]] = []
        at, tables, suffix, last = 0, self._own, name, len(name) - self.shortest
        while at <= last:
            key = hash(suffix) or 1
            slot = key & mask
            while held := keys[slot]:
                if held == key:
                    found.append((at, tables[self._values[slot]]))
                    break
                slot = (slot + 1) & mask
            at += 1 + name[at]
            suffix = name[at:]
            tables = self._below
        rules = self._conditional(name, kind, client) if self._special or self._patterns else []
        if self._clients:
            rules = rules + self._by_client(client.address)
        if not found and not rules:
            return None
        if len(found) == 1 and not rules:
            return Match(found[0][1])
        return _merged(found, rules, self._zones)

    def likenesses(self, names: Sequence[bytes], walks: Walks) -> list[int]:
        """For each a number that two names share only if `match` says the same of both, to the same client about the
        same type.

        -1: none, as a suffix of it stands apart, or a pattern matches, or it is no wire name (what ends in a zero byte
        and has none before is enough). `walks`: made for `shortest`, and with the names of `special`.
        """
        keys, values, mask, parent = self._keys, self._values, self._mask, self._parent
        apart, patterns = walks.apart, self._patterns
        numbers: list[int] = []
        for name, (looked_up, compared) in zip(names, walks.of(names), strict=True):
            said = 0
            for at in looked_up:
                slot = (key := hash(name[at:]) or 1) & mask
                while (held := keys[slot]) and held != key:
                    slot = (slot + 1) & mask
                if held:
                    value = values[slot]
                    said = said << 33 | value << 1 | (1 if at else 0)
                    if not parent[value]:
                        break
            for at in compared:
                if at < 0 or name[at:] in apart:
                    said = -1
            numbers.append(-1 if patterns and said >= 0 and self._by_pattern(name) else said)
        return numbers

    @property
    def special(self) -> Collection[bytes]:
        """Names of which entries with conditions speak, or with answers of their own; the root if a plain one does."""
        return {b"\x00", *self._special} if self.shortest == 1 else self._special.keys()

    @property
    def has_addresses(self) -> bool:
        """Whether addresses in answers trigger anything."""
        return bool(self._addresses)

    def match_address(self, packed: bytes, kind: int, client: Subject) -> Match | None:
        """What lists say about an address (4 or 16 bytes) in an answer; the longest prefix decides within a list."""
        if not self._addresses:
            return None
        rules = _covering(self._addresses, packed)
        held = [(shift, rule) for shift, rule in rules if rule.applies(b"\x00", kind, client)]
        return _merged([], held, self._zones) if held else None

    def _conditional(self, name: bytes, kind: int, client: Subject) -> list[tuple[int, Rule]]:
        rules: list[tuple[int, Rule]] = []
        if self._special:
            scope, at, special = Scope.SELF, 0, self._special
            while True:
                for rule in special.get(name[at:], ()):
                    if rule.scope & scope:
                        rules.append((at, rule))
                if not name[at]:
                    break
                at += 1 + name[at]
                scope = Scope.BELOW
        if self._patterns:
            rules += [(0, rule) for rule in self._by_pattern(name)]
        return [held for held in rules if held[1].applies(name, kind, client)] if rules else rules

    def _by_client(self, address: str) -> list[tuple[int, Rule]]:
        """Before any name (RPZ draft, section 5.1): at places below zero, the longest prefix at the lowest."""
        rules = self._client_memo.get(address)
        if rules is None:
            try:
                packed = ipaddress.ip_address(address.partition("%")[0]).packed
            except ValueError:
                return []
            rules = [(shift - 129, rule) for shift, rule in _covering(self._clients, packed)]
            if len(self._client_memo) >= MEMO_MAX:
                self._client_memo.clear()
            self._client_memo[address] = rules
        return rules

    def _by_pattern(self, name: bytes) -> Sequence[Rule]:
        rules = self._memo.get(name)
        if rules is None:
            rules = self._patterns.match(wire.name_text(name))
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            self._memo[name] = rules
        return rules

    def has_plain(self, name: bytes, list_index: int) -> list[tuple[bytes, Scope]]:
        """For explanations: the plain entries of that list which match, longest first."""
        out = []
        scope = Scope.SELF
        for suffix in [*wire.suffixes(name), b"\x00"]:
            combo = self._combo_of(suffix)
            if combo is not None:
                masks = (self._own if scope is Scope.SELF else self._below)[combo]
                if any(held >> list_index & 1 for held in masks):
                    own = any(held >> list_index & 1 for held in self._own[combo])
                    below = any(held >> list_index & 1 for held in self._below[combo])
                    out.append((suffix, Scope((Scope.SELF if own else 0) | (Scope.BELOW if below else 0))))
            scope = Scope.BELOW
        return out

    def _combo_of(self, suffix: bytes) -> int | None:
        mask = self._mask
        key = hash(suffix) or 1
        slot = key & mask
        while held := self._keys[slot]:
            if held == key:
                return self._values[slot]
            slot = (slot + 1) & mask
        return None

    def explain(self, name: bytes, kind: int, client: Subject, list_index: int) -> str:
        """The entry of that list which matches, in words."""
        for _, rule in self._conditional(name, kind, client):
            if rule.list == list_index:
                return rule.text
        for suffix, scope in self.has_plain(name, list_index):
            text = wire.name_text(suffix)
            return {Scope.SELF: text, Scope.BELOW: f"*.{text} (below)", Scope.TREE: f"||{text}^"}[scope]
        return ""


def _covering(table: Addresses, packed: bytes) -> list[tuple[int, Rule]]:
    """(bits cut off, rule) of the networks that an address (4 or 16 bytes) is in."""
    number, bits = int.from_bytes(packed, "big"), 8 * len(packed)
    rules = list[tuple[int, Rule]]()
    for (size, shift), known in table.items():
        if size == bits:
            rules += [(shift, rule) for rule in known.get(number >> shift, ())]
    return rules


def _merged(found: list[tuple[int, Masks]], rules: list[tuple[int, Rule]], zones: int) -> Match:
    if zones:
        found, rules = _most_exact(found, rules, zones)
    total = [0, 0, 0, 0, 0]
    for _, masks in found:
        for klass in range(5):
            total[klass] |= masks[klass]
    dictating = []
    for _, rule in rules:
        if rule.rewrite is not None or rule.lifts is not None:
            dictating.append(rule)
        else:
            total[rule.klass] |= 1 << rule.list
    return Match((total[0], total[1], total[2], total[3], total[4]), tuple(dictating))


def _most_exact(
    found: list[tuple[int, Masks]], rules: list[tuple[int, Rule]], zones: int
) -> tuple[list[tuple[int, Masks]], list[tuple[int, Rule]]]:
    """For lists that are zones, only what stands at the longest name counts (RPZ draft, section 5)."""
    nearest: dict[int, int] = {}
    for at, rule in rules:
        if zones >> rule.list & 1:
            nearest[rule.list] = min(at, nearest.get(rule.list, at))
    for at, masks in found:
        held = (masks[0] | masks[1] | masks[2] | masks[3] | masks[4]) & zones
        while held:
            index = _lowest(held)
            held &= held - 1
            nearest[index] = min(at, nearest.get(index, at))
    kept = []
    for at, masks in found:
        hidden = sum(1 << index for index, best in nearest.items() if best < at)
        kept.append((at, _without(masks, hidden)))
    return kept, [(at, rule) for at, rule in rules if at <= nearest.get(rule.list, at)]


def _without(masks: Masks, hidden: int) -> Masks:
    return tuple(mask & ~hidden for mask in masks)  # type: ignore[return-value]
