"""Response policy zones as zone files (draft-vixie-dnsop-dns-rpz-00): triggers by name, by address in the answer and
by address of the client.

Actions: `CNAME .` blocks (with the answer that the policy chose), `CNAME *.` is NODATA, `rpz-passthru.`, `rpz-drop.`
and `rpz-tcp-only.` are what they say, `CNAME *.garden.` puts the name that was asked for in front, anything else is
local data. Triggers by name server and its address are counted as ignored: a forwarder does not meet name servers.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.records import rdata_of, type_of
from warren.dnsfilter.core.rules import Klass, Rewrite, Rule, Scope
from warren.fabric.core import dnswire as wire

_IGNORED_TYPES: Final = frozenset({"SOA", "NS", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "DNAME", "CDS", "DS"})
_UNSUPPORTED: Final = (".rpz-nsip", ".rpz-nsdname")
_CLIENT: Final = ".rpz-client-ip"
_ADDRESS: Final = ".rpz-ip"
_ACTIONS: Final = {
    "*.": Rewrite(),
    "rpz-drop.": Rewrite(drop=True),
    "rpz-tcp-only.": Rewrite(truncate=True),
}


class ZoneParser:
    """One zone file, line by line."""

    def __init__(self, builder: Builder, list_index: int, klass: Klass) -> None:
        self._builder = builder
        self._index = list_index
        self._klass = klass
        self._origin = ""
        """With the dot at its end; empty until known."""
        self._owner = ""
        self._depth = 0
        """Open parentheses of a record over several lines; only those that are skipped have them."""

    def line(self, raw: bytes) -> int | None:
        """Entries that the line made; 0: none of ours; None: not understood."""
        text = raw.decode("utf-8", "replace").partition(";")[0].rstrip()
        if self._depth or "(" in text:
            self._learn_origin(text)
            self._depth = max(0, self._depth + text.count("(") - text.count(")"))
            return 0
        words = text.split()
        if not words:
            return 0
        if words[0] == "$ORIGIN" and len(words) == 2:
            self._origin = words[1].lower()
            return 0
        if words[0].startswith("$"):
            return 0
        if text[0] not in " \t":
            self._owner = words.pop(0).lower()
        while words and (words[0].isdecimal() or words[0].upper() == "IN"):
            words.pop(0)
        if len(words) < 2:
            return None
        return self._record(words[0].upper(), " ".join(words[1:]))

    def _learn_origin(self, text: str) -> None:
        words = text.split()
        if "SOA" in words and words[0] not in ("@", "SOA") and not self._origin and words[0].endswith("."):
            self._origin = words[0].lower()

    def _record(self, kind: str, data: str) -> int | None:
        if kind in _IGNORED_TYPES:
            if kind == "SOA" and self._owner.endswith(".") and not self._origin:
                self._origin = self._owner
            return 0
        owner = self._relative(self._owner)
        if not owner or owner.endswith(_UNSUPPORTED):
            return 0
        try:
            klass, rewrite = self._action(kind, data)
            if owner.endswith((_ADDRESS, _CLIENT)):
                return self._on_address(owner, klass, rewrite)
            return self._on_name(owner, klass, rewrite)
        except ValueError:
            return None

    def _relative(self, owner: str) -> str:
        """The trigger, without the zone's own name."""
        if owner == "@" or owner == self._origin:
            return ""
        if owner.endswith("."):
            return owner.removesuffix("." + self._origin).rstrip(".") if self._origin else owner[:-1]
        return owner

    def _action(self, kind: str, data: str) -> tuple[Klass, Rewrite | None]:
        if kind != "CNAME":
            number = type_of(kind)
            if number is None:
                raise ValueError(f"{kind} is no type")
            return self._klass, Rewrite(type=number, rdata=rdata_of(number, data))
        target = data.lower()
        if target == ".":
            return self._klass, None
        if target == "rpz-passthru.":
            return (Klass.TRUSTED if self._klass is Klass.TRUSTED else Klass.ALLOW), None
        if target in _ACTIONS:
            return self._klass, _ACTIONS[target]
        if target.startswith("*."):
            return self._klass, Rewrite(cname=wire.name_wire(target[2:]), garden=True)
        return self._klass, Rewrite(cname=wire.name_wire(target))

    def _on_name(self, owner: str, klass: Klass, rewrite: Rewrite | None) -> int | None:
        scope = Scope.SELF
        if owner.startswith("*."):
            scope, owner = Scope.BELOW, owner[2:]
        name = b"\x00" if owner == "*" else wire.name_wire(owner)
        if owner == "*":
            scope = Scope.TREE
        if rewrite is None:
            self._builder.plain(name, self._index, scope, klass)
            return 1
        rule = Rule(list=self._index, klass=klass, text=f"{self._owner} (zone)", scope=scope, rewrite=rewrite)
        return 1 if self._builder.special(name, rule) else None

    def _on_address(self, owner: str, klass: Klass, rewrite: Rewrite | None) -> int | None:
        rule = Rule(list=self._index, klass=klass, text=f"{self._owner} (zone)", rewrite=rewrite)
        add = self._builder.client if owner.endswith(_CLIENT) else self._builder.address
        return 1 if add(_network(owner.removesuffix(_CLIENT).removesuffix(_ADDRESS)), rule) else None


def _network(trigger: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """`24.0.2.0.192` is 192.0.2.0/24, `48.zz.db8.2001` is 2001:db8::/48. ValueError if it is none."""
    length, *parts = trigger.split(".")
    parts.reverse()
    if len(parts) == 4 and "zz" not in parts:
        address = ".".join(parts)
    else:
        address = ":".join("" if part == "zz" else part for part in parts)
        address = ":" + address if address.startswith(":") else address
        address = address + ":" if address.endswith(":") else address
    return ipaddress.ip_network(f"{address}/{length}")
