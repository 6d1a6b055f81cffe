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

Shelf = dict[bytes, "Packet"]
"""One client's answers over one transport, by query without its id."""


class Packet(msgspec.Struct, gc=False):
    """An answer without its id. Times are monotonic."""

    name: bytes
    """Wire name that was asked for."""
    rest: bytes
    client: Client
    resolved: Resolved
    kind: Kind
    """Of the verdict of `resolved`."""
    until: float
    filter: object
    entry: Entry | None
    """The cached answer under it; None: there is none, and no TTL changes."""
    ttls: tuple[int, ...]
    plain: bool
    """It needs no cookie and no padding before it goes."""
    counted: float = 0.0
    """The TTLs in `rest` hold until then; only with `entry`."""
    log: bytes = b""
    """The end of its line in the query log, once there was one."""

    def answer(self, ident: bytes, now: float) -> bytes:
        """The same answer for another id, now."""
        entry = self.entry
        if entry is not None:
            entry.hits += 1
            entry.recent = True
            if now >= self.counted:
                self._count_down(entry, int(now - entry.stored))
        return ident + self.rest

    def _count_down(self, entry: Entry, age: int) -> None:
        out, body, self.counted = bytearray(b"\x00\x00" + self.rest), entry.body, entry.stored + age + 1
        for at in self.ttls:
            left = min(_TTL.unpack_from(body, at)[0], TTL_MAX) - age
            _TTL.pack_into(out, at, left if left > 0 else 0)
        self.rest = bytes(out[2:])


class Packets:
    """Shelves of answers, bounded together."""

    def __init__(self) -> None:
        self._shelves: dict[tuple[Client, str], Shelf] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def shelf(self, client: Client, transport: str) -> Shelf:
        """Where that client's answers stand. It stays empty once all have gone: ask for it again after a miss."""
        key = (client, transport)
        shelf = self._shelves.get(key)
        if shelf is None:
            if len(self._shelves) >= PACKETS_MAX:
                self.clear()
            shelf = self._shelves[key] = {}
        return shelf

    def clear(self) -> None:
        for shelf in self._shelves.values():
            shelf.clear()
        self._shelves.clear()
        self._count = 0

    def put(self, shelf: Shelf, rest: bytes, resolved: Resolved, asked: Asked, filter_: object) -> None:
        """Keep what the chain decided at `asked.now`, if it is of a kind to keep. `rest`: the query without its id."""
        message, kind, question = resolved.message, resolved.verdict.kind, asked.question
        if kind not in _KEPT or not message or len(message) > ANSWER_MAX or len(rest) > QUERY_MAX:
            return
        entry = asked.entry if kind is Kind.CACHED and isinstance(asked.entry, Entry) else None
        until, counted = asked.now + 60.0 - asked.wall % 60.0, 0.0
        ttls: tuple[int, ...] = ()
        if entry is not None:
            until = min(until, entry.ends - (entry.ends - entry.stored) * PREFETCH_SHARE)
            counted = entry.stored + int(asked.now - entry.stored) + 1
            if len(message) >= len(entry.body):  # not when it was truncated
                ttls = entry.ttls
        if rest not in shelf:
            if self._count >= PACKETS_MAX:
                self.clear()
                return
            self._count += 1
        plain = not (question.cookie or question.padded)
        shelf[rest] = Packet(
            question.name, message[2:], asked.client, resolved, kind, until, filter_, entry, ttls, plain, counted
        )
