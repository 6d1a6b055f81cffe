"""Answers of upstreams, kept for as long as they say (RFC 2308 for negative ones) and bounded by bytes.

An entry is the upstream's message without OPT; handing it out patches id, case, flags and TTLs, nothing is built anew.
Past its end an entry stays for `stale_for` seconds, for the day when no upstream answers (RFC 8767).
"""

from __future__ import annotations

from typing import Final

import msgspec

from warren.dnsfilter.core.config import CacheConfig
from warren.dnsfilter.core.verdict import Said
from warren.fabric.core import dnswire as wire
from warren.fabric.core.dnsreply import Reply

ENTRY_OVERHEAD: Final = 600
"""Bytes of an entry besides message and name: key, structs, offsets, the place in the table (measured)."""
ENTRY_MAX: Final = 16 << 10
"""A larger message is not kept: one name must not push out a hundred."""
PREFETCH_HITS: Final = 2
"""An entry asked for so often in its life is fetched anew before it ends..."""
PREFETCH_SHARE: Final = 0.1
"""...when this share of its life is left."""

Key = tuple[bytes, int, int, str]


def key_of(question: wire.Question, group: str) -> Key:
    """What makes two questions the same: name, type, DO and CD, and who would be asked. Class is IN throughout."""
    return question.name, question.type, question.flags & wire.CD | question.dnssec_ok, group


class Entry(msgspec.Struct):
    """One kept answer. Times are monotonic seconds."""

    body: bytes
    ttls: tuple[int, ...]
    rcode: int
    stored: float
    ends: float
    upstream: str
    size: int
    said: Said
    settled: object = None
    """The filter that found nothing in `said` to object to, for whichever client."""
    hits: int = 0
    recent: bool = False
    """Asked for since the hand of the clock passed."""

    def wants_prefetch(self, now: float) -> bool:
        """Asked for often, and about to end. True once, and again only after further hits."""
        if self.hits < PREFETCH_HITS or now < self.ends - (self.ends - self.stored) * PREFETCH_SHARE:
            return False
        self.hits = 0
        return True


class Cache:
    """Key → entry, with the clock algorithm for what goes when bytes run out."""

    def __init__(self, config: CacheConfig) -> None:
        self._config = config
        self._entries: dict[Key, Entry] = {}
        self.bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, key: Key, now: float) -> Entry | None:
        """The entry, if it has not ended."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.ends:
            return None
        entry.hits += 1
        entry.recent = True
        return entry

    def stale(self, key: Key, now: float) -> Entry | None:
        """The entry, ended or not, if it may still be served when nobody answers."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.ends + self._config.stale_for:
            self._remove(key)
            return None
        return entry

    def put(self, key: Key, reply: Reply, upstream: str, now: float) -> Entry | None:
        """Keep a reply; None if it is none to keep: failures, truncated ones, negative ones without an SOA."""
        life = self._life(reply)
        size = len(reply.body) + len(key[0]) + ENTRY_OVERHEAD + 70 * (len(reply.ttls) + len(reply.chain))
        if life <= 0 or size > ENTRY_MAX:
            return None
        if key in self._entries:
            self._remove(key)
        said = Said(reply.chain, reply.addresses)
        entry = Entry(reply.body, reply.ttls, reply.rcode, now, now + life, upstream, size, said)
        self._entries[key] = entry
        self.bytes += size
        while self.bytes > self._config.max_bytes:
            self._evict_one()
        return entry

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0

    def _life(self, reply: Reply) -> int:
        if reply.truncated or reply.rcode not in (wire.NOERROR, wire.NXDOMAIN):
            return 0
        return min(reply.ttl, self._config.max_negative_ttl if reply.negative else self._config.max_ttl)

    def _evict_one(self) -> None:
        """The oldest that was not asked for since it was last looked at: at most one turn around the table."""
        while True:
            key = next(iter(self._entries))
            entry = self._entries[key]
            if not entry.recent:
                break
            entry.recent = False
            del self._entries[key]
            self._entries[key] = entry
        self._remove(key)
        self.evicted += 1

    def _remove(self, key: Key) -> None:
        self.bytes -= self._entries.pop(key).size
