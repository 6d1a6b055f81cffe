"""Questions that no forwarder passes on, whatever the name."""

from __future__ import annotations

from warren.dnsfilter.core.verdict import Asked, Kind, Resolved, Verdict
from warren.fabric.core import dnswire as wire

_META = range(128, 256)
"""Types that ask for something other than records (RFC 6895, section 3.1): transfers, TKEY, TSIG."""
_ANY_TTL = 3600


class Sanity:
    """Classes but IN, transfers and meta types are refused; ANY gets the minimal answer of RFC 8482."""

    name = "sanity"

    def decide(self, asked: Asked) -> Resolved | None:
        question = asked.question
        if question.cls == wire.IN and (question.type not in _META and question.type != wire.OPT):
            return None
        if question.cls == wire.IN and question.type == wire.ANY:
            hint = wire.Record(wire.HINFO, b"\x07RFC8482\x00", _ANY_TTL)
            message = wire.answer(question, records=[hint], limit=asked.limit)
            return Resolved(message, Verdict(Kind.LOCAL, self.name, "ANY"), question)
        extended = wire.Extended(wire.EDE_NOT_SUPPORTED, "neither transfers nor classes but IN")
        message = wire.answer(question, wire.REFUSED, extended=extended, limit=asked.limit)
        return Resolved(message, Verdict(Kind.LOCAL, self.name, "not supported"), question)
