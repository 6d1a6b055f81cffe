"""List files, line by line, into a rule set's builder: hosts, plain domains, wildcards, dnsmasq; else by its dialect.

A line says by itself what it is, so one list may mix syntaxes, as real ones do. A line that is none is counted and
skipped: a list never fails as a whole here (whoever refreshes it judges the report).
"""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

import msgspec

from warren.dnsfilter.core import adblock, rpz
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.records import address_type
from warren.dnsfilter.core.rules import Klass, Rewrite, Rule, Scope
from warren.fabric.core import dnswire as wire

Kind = Literal["block", "allow"]
Syntax = Literal["auto", "rpz"]

LINE_MAX: Final = 4096
"""Bytes of a line; what is longer is no entry."""
ERRORS_KEPT: Final = 5

_ALLOWED: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
_LABELS: Final = [bytes((length,)) for length in range(64)]
_SINKS: Final = {b"0.0.0.0", b"127.0.0.1", b"::", b"::1", b"0"}
_OWN: Final = """
    localhost localhost.localdomain local broadcasthost ip6-localhost ip6-loopback ip6-localnet
    ip6-mcastprefix ip6-allnodes ip6-allrouters ip6-allhosts
"""
_OWN_NAMES: Final = frozenset(map(wire.name_wire, _OWN.split()))
"""What hosts files name for the host itself."""


class Report(msgspec.Struct):
    """What came of a list."""

    lines: int = 0
    entries: int = 0
    ignored: int = 0
    """Lines that are no rule for names: cosmetic rules, unknown modifiers, unsupported triggers."""
    errors: list[str] = []
    """The first few that are not understood, with their line number."""


class ListParser:
    """One list. `feed` bytes in any cuts, then `end`; entries go to the builder under that list's index."""

    def __init__(self, builder: Builder, name: str, kind: Kind = "block", syntax: Syntax = "auto") -> None:
        self.index = builder.add_list(name)
        self.report = Report(errors=[])
        self._builder = builder
        self._klass = Klass.TRUSTED if kind == "allow" else Klass.BLOCK
        self._rest = b""
        self._zone: rpz.ZoneParser | None = None
        if syntax == "rpz":
            self._begin_zone()

    def feed(self, chunk: bytes) -> None:
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_MAX:
            self._rest = self._rest[: LINE_MAX + 1]
        for line in lines:
            self._line(line)

    def end(self) -> Report:
        self._line(self._rest)
        self._rest = b""
        return self.report

    def _line(self, line: bytes) -> None:
        self.report.lines += 1
        if len(line) > LINE_MAX:
            self._not_understood("a line longer than 4096 bytes")
            return
        if self._zone is not None:
            self._count(self._zone.line(line), line)
            return
        line = line.strip()
        if not line or line[0] in b"#!;[":
            return
        if line[0] in b"$@" and (line[:2] != b"@@") and (line.startswith((b"$TTL", b"$ORIGIN")) or b"SOA" in line):
            self._begin_zone()
            self._line(line)
            self.report.lines -= 1
            return
        self._count(self._entry(line), line)

    def _begin_zone(self) -> None:
        self._builder.is_zone(self.index)
        self._zone = rpz.ZoneParser(self._builder, self.index, self._klass)

    def _count(self, understood: int | None, line: bytes) -> None:
        """By number of entries; 0: nothing for us; None: not understood."""
        if understood is None:
            self._not_understood(line[:80].decode("utf-8", "replace"))
        elif understood:
            self.report.entries += understood
        elif line.strip()[:1] not in b";":
            self.report.ignored += 1

    def _not_understood(self, text: str) -> None:
        self.report.ignored += 1
        if len(self.report.errors) < ERRORS_KEPT:
            self.report.errors.append(f"line {self.report.lines}: {text}")

    def _entry(self, line: bytes) -> int | None:
        name = host_wire(line)
        if name is not None:  # the most frequent one first
            self._builder.plain(name, self.index, Scope.SELF, self._klass)
            return 1
        if line[:2] == b"||" and line[-1:] == b"^":
            name = host_wire(line[2:-1])
            if name is not None:
                self._builder.plain(name, self.index, Scope.TREE, self._klass)
                return 1
        if _is_address(bare := line[2:-1] if line[:2] == b"||" and line[-1:] == b"^" else line):
            return self._address_line(bare.decode())
        words = line.split()
        if len(words) > 1 and (words[0] in _SINKS or _is_address(words[0])):
            return self._hosts_line(words)
        if len(words) > 1 and words[1][:1] == b"#":
            return self._entry(words[0])
        if line[:2] == b"*." or line[:1] == b".":
            name = host_wire(line.lstrip(b"*."))
            if name is not None:
                self._builder.plain(name, self.index, Scope.TREE, self._klass)
                return 1
        if line.startswith((b"address=/", b"server=/", b"local=/")):
            return self._dnsmasq_line(line.decode("utf-8", "replace"))
        if b"##" in line or b"#@#" in line or b"#?#" in line or b"#$#" in line or b"#%#" in line:
            return 0  # what a browser hides in a page
        return adblock.add(line.decode("utf-8", "replace"), self._builder, self.index, self._klass)

    def _address_line(self, text: str) -> int | None:
        """An address alone: answers that have it are blocked, as AdGuard Home and blocky do."""
        rule = Rule(list=self.index, klass=self._klass, text=text)
        return 1 if self._builder.address(ipaddress.ip_network(text), rule) else None

    def _hosts_line(self, words: list[bytes]) -> int | None:
        count, sink = 0, words[0] in _SINKS or _is_sink(words[0])
        for word in words[1:]:
            if word[:1] == b"#":
                break
            name = host_wire(word)
            if name is None or name in _OWN_NAMES:
                continue
            if sink or self._klass is Klass.TRUSTED:
                self._builder.plain(name, self.index, Scope.SELF, self._klass)
            else:
                self._dictate(name, words[0].decode(), Scope.SELF, b" ".join((words[0], word)).decode())
            count += 1
        return count

    def _dictate(self, name: bytes, address: str, scope: Scope, text: str) -> None:
        kind, rdata = address_type(address)
        rewrite = Rewrite(type=kind, rdata=rdata)
        self._builder.special(name, Rule(list=self.index, klass=Klass.BLOCK, text=text, scope=scope, rewrite=rewrite))

    def _dnsmasq_line(self, text: str) -> int | None:
        """`address=/a/b/ADDRESS`, `server=/a/`, `local=/a/` (dnsmasq(8)): all of it reaches the names below too."""
        option, _, rest = text.partition("=")
        *names, target = (
            rest.split("#", 1)[0].strip().lstrip("/").split("/") if rest[-1:] != "#" else rest[1:].split("/")
        )
        wires = [host_wire(name.encode().lstrip(b"*.")) for name in names]
        if not wires or None in wires:
            return None
        if option != "address" and target not in ("", "#"):
            return 0  # which server resolves a zone is for the configuration to say
        for name in wires:
            if option != "address" and target == "#":
                self._builder.plain(name or b"", self.index, Scope.TREE, Klass.ALLOW)
            elif target in ("", "#") or _is_sink(target.encode()):
                self._builder.plain(name or b"", self.index, Scope.TREE, self._klass)
            elif _is_address(target.encode()):
                self._dictate(name or b"", target, Scope.TREE, text)
            else:
                return None
        return len(wires)


def host_wire(token: bytes) -> bytes | None:
    """The wire name of a host name as lists write it, or None. Letters beyond ASCII become A-labels."""
    token = token.lower()
    if token.translate(None, _ALLOWED):
        return _beyond_ascii(token)
    labels = token.split(b".")
    if not labels[-1]:
        labels.pop()
    if not labels or labels[-1].isdigit():  # an address
        return None
    parts = []
    for label in labels:
        length = len(label)
        if not 0 < length < 64:
            return None
        parts.append(_LABELS[length])
        parts.append(label)
    parts.append(b"\x00")
    name = b"".join(parts)
    return name if len(name) <= wire.NAME_MAX else None


def _beyond_ascii(token: bytes) -> bytes | None:
    if token.isascii():
        return None
    try:
        encoded = token.decode().encode("idna").lower()
    except UnicodeError:
        return None
    return None if encoded.translate(None, _ALLOWED) else host_wire(encoded)


def _is_address(token: bytes) -> bool:
    try:
        ipaddress.ip_address(token.decode("ascii", "replace"))
    except ValueError:
        return False
    return True


def _is_sink(token: bytes) -> bool:
    """An address that means "nowhere": unspecified or loopback."""
    try:
        address = ipaddress.ip_address(token.decode("ascii", "replace"))
    except ValueError:
        return False
    return address.is_unspecified or address.is_loopback
