"""Builds a rule set aside, out of what the list parsers find."""

from __future__ import annotations

import ipaddress
from array import array
from collections.abc import Sequence
from typing import Final

import msgspec
import re2  # type: ignore[import-untyped]

from warren.dnsfilter.core.parents import Parents
from warren.dnsfilter.core.rules import Addresses, Combo, Klass, Rule, RuleSet, Scope

SMALLEST: Final = 1 << 10
LOAD_MAX: Final = 0.6
"""Share of the table in use before it doubles: 1.8 slots looked at for a name that is not in it."""
PATTERNS_MAX: Final = 20_000
SPECIAL_MAX: Final = 200_000
"""Entries with conditions: some 600 bytes each."""
PATTERN_LENGTH_MAX: Final = 1000
PATTERN_MEMORY: Final = 256 << 10
"""Bytes that RE2 may use for one pattern; real ones take a few thousand."""
COMPILED_AT_ONCE: Final = 250
"""Patterns that RE2 compiles in one call, which holds the interpreter: some 6 ms, so that no query waits longer."""


class Pattern(msgspec.Struct, frozen=True):
    """A rule whose name is a regular expression (RE2's syntax) over the presentation form."""

    expression: str
    rule: Rule


class PatternSet:
    """Patterns behind RE2's filter: literal parts are found first, and only what has them is run. Linear time."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._size = len(patterns)
        self._parts: list[tuple[re2.Filter, list[Rule]]] = []
        for start in range(0, len(patterns), COMPILED_AT_ONCE):
            part = patterns[start : start + COMPILED_AT_ONCE]
            matcher = re2.Filter()
            for pattern in part:
                matcher.Add(pattern.expression, _options())
            matcher.Compile()
            self._parts.append((matcher, [pattern.rule for pattern in part]))

    def __len__(self) -> int:
        return self._size

    def match(self, text: str) -> Sequence[Rule]:
        return tuple(rules[index] for matcher, rules in self._parts for index in matcher.Match(text) or ())


def _options() -> re2.Options:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY
    return options


def is_pattern(expression: str) -> bool:
    """Whether RE2 takes it: no back references, no look-around, bounded size."""
    if len(expression) > PATTERN_LENGTH_MAX:
        return False
    try:
        re2.compile(expression, _options())
    except re2.error:
        return False
    return True


def _zeros(typecode: str, size: int) -> array[int]:
    """An array of zeros, a piece at a time: 16 MiB at once would hold the interpreter for 10 ms."""
    zeros = array(typecode)
    piece = bytes(min(size, 1 << 13) * zeros.itemsize)
    for _ in range(0, size * zeros.itemsize, len(piece)):
        zeros.frombytes(piece)
    return zeros


class Builder:
    """Collects entries; `finish` gives the rule set and ends the builder's life."""

    def __init__(self, expected: int = 0) -> None:
        """`expected`: number of names, so that the table need not grow."""
        size = SMALLEST
        while size * LOAD_MAX < expected:
            size *= 2
        self._keys = _zeros("q", size)
        self._values = _zeros("H", size)
        self._used = 0
        self._shortest = 255
        self._parents = Parents()
        self._combos: list[Combo] = [Combo()]
        self._combo_index: dict[Combo, int] = {self._combos[0]: 0}
        self._steps: dict[tuple[int, int, int, int], int] = {}
        self._special: dict[bytes, list[Rule]] = {}
        self._special_count = 0
        self._patterns: list[Pattern] = []
        self._names: list[str] = []
        self._zones = 0
        self._addresses: Addresses = {}
        self._clients: Addresses = {}
        self._bad: set[str] = set()
        self._bad_plain: list[tuple[bytes, Klass]] = []

    def add_list(self, name: str) -> int:
        """The index that entries of this list carry."""
        self._names.append(name)
        return len(self._names) - 1

    def is_zone(self, list_index: int) -> None:
        """In this list the most exact name decides (RPZ)."""
        self._zones |= 1 << list_index

    def address(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network, rule: Rule) -> bool:
        """An address in an answer triggers the rule; False: there are too many."""
        return self._network(self._addresses, network, rule)

    def client(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network, rule: Rule) -> bool:
        """The address of who asks triggers the rule; False: there are too many."""
        return self._network(self._clients, network, rule)

    def _network(self, table: Addresses, network: ipaddress.IPv4Network | ipaddress.IPv6Network, rule: Rule) -> bool:
        if self._special_count >= SPECIAL_MAX:
            return False
        shift = network.max_prefixlen - network.prefixlen
        known = table.setdefault((network.max_prefixlen, shift), {})
        number = int(network.network_address) >> shift
        known[number] = (*known.get(number, ()), rule)
        self._special_count += 1
        return True

    @property
    def names_held(self) -> int:
        return self._used

    def plain(self, name: bytes, list_index: int, scope: Scope, klass: Klass) -> None:
        """A wire name without conditions."""
        keys, values = self._keys, self._values
        mask = len(keys) - 1
        key = hash(name) or 1
        slot = key & mask
        while held := keys[slot]:
            if held == key:
                values[slot] = self._step(values[slot], list_index, scope, klass)
                return
            slot = (slot + 1) & mask
        keys[slot] = key
        values[slot] = self._step(0, list_index, scope, klass)
        self._used += 1
        self._parents.add_those_of(name)
        if len(name) < self._shortest:
            self._shortest = len(name)
        if self._used > LOAD_MAX * len(keys):
            self._grow()

    def special(self, name: bytes, rule: Rule) -> bool:
        """A wire name with conditions or an answer of its own; False: there are too many."""
        if self._special_count >= SPECIAL_MAX:
            return False
        self._special.setdefault(name, []).append(rule)
        self._special_count += 1
        return True

    def pattern(self, expression: str, rule: Rule) -> bool:
        """A pattern that `is_pattern` took; False: there are too many."""
        if len(self._patterns) >= PATTERNS_MAX:
            return False
        self._patterns.append(Pattern(expression, rule))
        return True

    def bad(self, text: str, plain: tuple[bytes, Klass] | None) -> None:
        """`$badfilter`: the rule of that text is void, in every list; `plain`, if it has no conditions."""
        self._bad.add(text)
        if plain is not None:
            self._bad_plain.append(plain)

    def finish(self) -> RuleSet:
        for name, klass in self._bad_plain:
            self._remove(name, klass)
        self._tell_parents()
        special = {
            name: kept
            for name, rules in self._special.items()
            if (kept := tuple(rule for rule in rules if rule.text not in self._bad))
        }
        patterns = PatternSet([pattern for pattern in self._patterns if pattern.rule.text not in self._bad])
        return RuleSet(
            self._keys,
            self._values,
            self._combos,
            special,
            patterns,
            self._names,
            self._shortest,
            self._zones,
            self._addresses,
            self._clients,
        )

    def _step(self, combo: int, list_index: int, scope: Scope, klass: Klass) -> int:
        """Index of what a combination becomes with one more entry; there are few, so each is made once."""
        step = (combo, list_index, scope, klass)
        index = self._steps.get(step)
        if index is None:
            index = self._steps[step] = self._index_of(self._combos[combo].with_entry(list_index, scope, klass))
        return index

    def _index_of(self, combo: Combo) -> int:
        index = self._combo_index.get(combo)
        if index is None:
            index = len(self._combos)
            if index == 1 << 16 and self._values.typecode == "H":
                self._values = array("I", self._values)
            self._combos.append(combo)
            self._combo_index[combo] = index
        return index

    def _remove(self, name: bytes, klass: Klass) -> None:
        mask = len(self._keys) - 1
        key = hash(name) or 1
        slot = key & mask
        while held := self._keys[slot]:
            if held == key:
                index = self._index_of(self._combos[self._values[slot]].without(klass))
                self._values[slot] = index
                return
            slot = (slot + 1) & mask

    def _tell_parents(self) -> None:
        """Those of the names that have others below have combinations of their own from now on."""
        has, told = self._parents.has, dict[int, int]()
        for slot, key in enumerate(self._keys):
            if key and has(key):
                index = self._values[slot]
                if index not in told:
                    told[index] = self._index_of(msgspec.structs.replace(self._combos[index], parent=True))
                self._values[slot] = told[index]

    def _grow(self) -> None:
        old_keys, old_values = self._keys, self._values
        size = 2 * len(old_keys)
        keys, values, mask = _zeros("q", size), _zeros(old_values.typecode, size), size - 1
        for at, key in enumerate(old_keys):
            if key:
                slot = key & mask
                while keys[slot]:
                    slot = (slot + 1) & mask
                keys[slot] = key
                values[slot] = old_values[at]
        self._keys, self._values = keys, values
