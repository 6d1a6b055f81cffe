"""What was answered before."""

from __future__ import annotations

from warren.dnsfilter.core.cache import Cache, key_of
from warren.dnsfilter.core.verdict import Asked, Kind, Resolved, Verdict
from warren.fabric.core import dnsreply


class Cached:
    """Answers from the cache while the entry lasts; one that is often asked for is fetched anew before it ends."""

    name = "cached"

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def decide(self, asked: Asked) -> Resolved | None:
        entry = self._cache.fresh(key_of(asked.question, asked.group), asked.now)
        if entry is None:
            return None
        asked.refresh = entry.wants_prefetch(asked.now)
        age = int(asked.now - entry.stored)
        message = dnsreply.render(entry.body, entry.ttls, asked.question, age, limit=asked.limit)
        return Resolved(message, Verdict(Kind.CACHED, self.name, upstream=entry.upstream), asked.question)
