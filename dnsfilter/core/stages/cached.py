"""What was answered before."""

from __future__ import annotations

from warren.dnsfilter.core.cache import Cache, Entry, key_of
from warren.dnsfilter.core.stages.filtering import Slot
from warren.dnsfilter.core.stages.inspection import Inspection
from warren.dnsfilter.core.verdict import Asked, Kind, Resolved, Verdict
from warren.fabric.core import dnsreply


class Cached:
    """Answers from the cache while the entry lasts; one that is often asked for is fetched anew before it ends.

    What an answer leads to is looked at for every client, once only where all clients fare alike.
    """

    name = "cached"

    def __init__(self, cache: Cache, inspection: Inspection, slot: Slot) -> None:
        self._cache = cache
        self._inspection = inspection
        self._slot = slot

    def decide(self, asked: Asked) -> Resolved | None:
        entry = self._cache.fresh(key_of(asked.question, asked.group), asked.now)
        if entry is None:
            return None
        asked.entry = entry
        asked.refresh = entry.wants_prefetch(asked.now)
        if entry.settled is not self._slot.current and (objection := self._objection(asked, entry)) is not None:
            return objection
        if asked.alias:
            return None
        age = int(asked.now - entry.stored)
        message = dnsreply.render(entry.body, entry.ttls, asked.question, age, limit=asked.limit)
        return Resolved(message, Verdict(Kind.CACHED, self.name, asked.rule, upstream=entry.upstream), asked.question)

    def _objection(self, asked: Asked, entry: Entry) -> Resolved | None:
        current = self._slot.current
        objection = self._inspection.inspect(asked, entry.said)
        if objection is None and not current.depends_on_client(entry.said):
            entry.settled = current
        return objection
