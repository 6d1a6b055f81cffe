"""Private zones and special-use names: what never goes to a public upstream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warren.dnsfilter.core.config import Zone
from warren.dnsfilter.core.verdict import Asked, Kind, Resolved, Verdict
from warren.fabric.core import dnswire as wire

NEGATIVE_TTL: Final = 60
"""A zone may get names at any moment (a new route): nobody should remember its absence for long."""
_LOCALHOST: Final = wire.name_wire("localhost")
_LOOPBACK: Final = (bytes((127, 0, 0, 1)), bytes(15) + b"\x01")
_LOCALHOST_TTL: Final = 3600

_SPECIAL = """
    localhost invalid test onion local internal home.arpa alt resolver.arpa
    corp home lan mail intranet private
"""
"""RFC 6761, 6762, 7686, 8375, 9462, 9476; `internal` is reserved for private use; the last line are names that the
root does not delegate because private networks use them (RFC 6762, appendix G; name collision)."""

_REVERSE = [
    "10.in-addr.arpa",
    *(f"{n}.172.in-addr.arpa" for n in range(16, 32)),
    "168.192.in-addr.arpa",
    *(f"{n}.100.in-addr.arpa" for n in range(64, 128)),  # RFC 7793
    *("0.in-addr.arpa", "127.in-addr.arpa", "254.169.in-addr.arpa", "255.255.255.255.in-addr.arpa"),
    *("2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa"),
    *("18.198.in-addr.arpa", "19.198.in-addr.arpa"),
    "0." * 32 + "ip6.arpa",
    "1." + "0." * 31 + "ip6.arpa",
    *("d.f.ip6.arpa", "c.f.ip6.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa", "a.e.f.ip6.arpa", "b.e.f.ip6.arpa"),
    "8.b.d.0.1.0.0.2.ip6.arpa",
]
"""RFC 6303, section 4."""

PRIVATE_ZONES: Final = (*_SPECIAL.split(), *_REVERSE)
"""Zones that nobody outside can answer; a `Zone` of the configuration for the same name or one below goes first."""


class Zones:
    """Sends the names of a zone to its own upstreams, and answers those of zones that have none."""

    name = "zones"

    def __init__(self, zones: Iterable[Zone]) -> None:
        self._groups: dict[bytes, str] = {wire.name_wire(name): "" for name in PRIVATE_ZONES}
        self._groups |= {wire.name_wire(zone.name): zone.group for zone in zones}

    def decide(self, asked: Asked) -> Resolved | None:
        zone = self._zone_of(asked.question)
        if zone is None:
            return None
        if group := self._groups[zone]:
            asked.group = group
            return None
        return self._nobody_else_knows(asked, zone)

    def _zone_of(self, question: wire.Question) -> bytes | None:
        """The longest zone that the name is in."""
        name, at, groups = question.name, 0, self._groups
        while name[at]:
            suffix = name[at:] if at else name
            if suffix in groups:
                return suffix
            at += 1 + name[at]
        return name[at:] if name[at:] in groups else None

    def _nobody_else_knows(self, asked: Asked, zone: bytes) -> Resolved:
        question = asked.question
        verdict = Verdict(Kind.LOCAL, self.name, f"zone {wire.name_text(zone)}")
        if zone == _LOCALHOST and question.type in (wire.A, wire.AAAA):
            message = wire.answer_addresses(question, _LOOPBACK, _LOCALHOST_TTL, limit=asked.limit)
            return Resolved(message, verdict, question)
        rcode = wire.NOERROR if question.name == zone else wire.NXDOMAIN
        authority = [wire.soa(zone, NEGATIVE_TTL)]
        message = wire.answer(question, rcode, authority=authority, authoritative=True, limit=asked.limit)
        return Resolved(message, verdict, question)
