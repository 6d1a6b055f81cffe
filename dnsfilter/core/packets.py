"""Whole answers by whole queries: the same bytes from the same client get the same answer but for id and TTLs.

It stands before the chain and holds only what the chain would say again: an entry ends with the filter that made it, at
the next full minute (rules that hold at certain times), and when the cached answer under it ends or wants to be fetched
anew. Hostname routes change at any moment: whoever has them asks them first. One look-up instead of 10 µs of stages.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from warren.dnsfilter.core.cache import PREFETCH_SHARE, Entry
from warren.dnsfilter.core.verdict import Asked, Client, Kind, Resolved
from warren.fabric.core.dnsreply import TTL_MAX

PACKETS_MAX: Final = 8192
"""Answers kept, some 1.2 KiB each with key and verdict; when there are more all go."""
ANSWER_MAX: Final = 1300
QUERY_MAX: Final = 300
"""Bytes of an answer and of a query that is kept; longer ones are rare."""
_KEPT: Final = frozenset({Kind.BLOCKED, Kind.OVERRIDDEN, Kind.LOCAL, Kind.CACHED})
_TTL = struct.Struct("!I")

Key = tuple[bytes, Client, str]
"""(query without its id, who asks, transport)."""


class Packet(msgspec.Struct, gc=False):
    """An answer without its id. `until` is monotonic."""

    name: bytes
    """Wire name that was asked for."""
    rest: bytes
    resolved: Resolved
    until: float
    filter: object
    entry: Entry | None
    """The cached answer under it; None: there is none, and no TTL changes."""
    ttls: tuple[int, ...]

    def answer(self, ident: bytes, now: float) -> Resolved:
        """The same answer for another id, now."""
        resolved, entry = self.resolved, self.entry
        if entry is None:
            return Resolved(ident + self.rest, resolved.verdict, resolved.question)
        entry.hits += 1
        entry.recent = True
        out, body, age = bytearray(ident + self.rest), entry.body, int(now - entry.stored)
        for at in self.ttls:
            left = min(_TTL.unpack_from(body, at)[0], TTL_MAX) - age
            _TTL.pack_into(out, at, left if left > 0 else 0)
        return Resolved(bytes(out), resolved.verdict, resolved.question)


class Packets:
    """Key → answer, bounded."""

    def __init__(self) -> None:
        self._packets: dict[Key, Packet] = {}

    def get(self, key: Key, now: float, filter_: object) -> Packet | None:
        """The answer, if it still holds."""
        packet = self._packets.get(key)
        if packet is None:
            return None
        if now >= packet.until or packet.filter is not filter_:
            del self._packets[key]
            return None
        return packet

    def put(self, key: Key, resolved: Resolved, asked: Asked, filter_: object) -> None:
        """Keep what the chain decided at `asked.now`, if it is of a kind to keep."""
        message, kind = resolved.message, resolved.verdict.kind
        if kind not in _KEPT or not message or len(message) > ANSWER_MAX or len(key[0]) > QUERY_MAX:
            return
        entry = asked.entry if kind is Kind.CACHED and isinstance(asked.entry, Entry) else None
        until = asked.now + 60.0 - asked.wall % 60.0
        ttls: tuple[int, ...] = ()
        if entry is not None:
            until = min(until, entry.ends - (entry.ends - entry.stored) * PREFETCH_SHARE)
            if len(message) >= len(entry.body):  # not when it was truncated
                ttls = entry.ttls
        if len(self._packets) >= PACKETS_MAX:
            self._packets.clear()
        self._packets[key] = Packet(asked.question.name, message[2:], resolved, until, filter_, entry, ttls)
