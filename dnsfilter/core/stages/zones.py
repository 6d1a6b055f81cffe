"""Private zones and special-use names: what never goes to a public upstream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warren.dnsfilter.core.config import Zone
from warren.dnsfilter.core.verdict import Asked, Kind, Resolved, Verdict
from warren.fabric.core import dnswire as wire
from warren.fabric.core.dnsprivate import PRIVATE_ZONES

NEGATIVE_TTL: Final = 60
"""A zone may get names at any moment (a new route): nobody should remember its absence for long."""
_LOCALHOST: Final = wire.name_wire("localhost")
_LOOPBACK: Final = (bytes((127, 0, 0, 1)), bytes(15) + b"\x01")
_LOCALHOST_TTL: Final = 3600


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
