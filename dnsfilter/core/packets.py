"""Whole answers by whole queries: the same bytes from the same client get the same answer but for id and TTLs.

It stands before the chain and holds only what the chain would say again: an entry ends with the filter that made it, at
the next full minute (rules that hold at certain times), and when the cached answer under it ends or wants to be fetched
anew. Hostname routes change at any moment: whoever has them asks them first. One look-up instead of 10 µs of stages.
Blocked names asked for once have forms of answers (`alike.py`), and a place here when they are asked for again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from warren.dnsfilter.core import alike
from warren.dnsfilter.core.cache import PREFETCH_SHARE, Entry
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.core.verdict import Asked, Client, Kind, Resolved
from warren.fabric.core.dnsreply import TTL_MAX

PACKETS_MAX: Final = 8192
"""Answers kept, some 1.2 KiB each with key and verdict; when there are more all go."""
ANSWER_MAX: Final = 1300
QUERY_MAX: Final = 300
"""Bytes of an answer (no answer over UDP has more) and of a query that is kept; longer ones are rare."""
_KEPT: Final = frozenset({Kind.BLOCKED, Kind.OVERRIDDEN, Kind.LOCAL, Kind.CACHED})
_TTL = struct.Struct("!I")

FORMS_MAX: Final = 8192
"""Forms of answers kept, some 0.8 KiB each; when there are more all go."""


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

    def holds(self, filter_: Filter, now: float) -> bool:
        return now < self.until and self.filter is filter_

    def given(self, now: float) -> bytes:
        """It is given again, now: what follows the query's id."""
        entry = self.entry
        if entry is not None:
            entry.hits += 1
            entry.recent = True
            if now >= self.counted:
                self._count_down(entry, int(now - entry.stored))
        return self.rest

    def _count_down(self, entry: Entry, age: int) -> None:
        out, body, self.counted = bytearray(b"\x00\x00" + self.rest), entry.body, entry.stored + age + 1
        for at in self.ttls:
            left = min(_TTL.unpack_from(body, at)[0], TTL_MAX) - age
            _TTL.pack_into(out, at, left if left > 0 else 0)
        self.rest = bytes(out[2:])


class Shelf(msgspec.Struct, eq=False):
    """One client's answers over one transport."""

    client: Client
    whole: dict[bytes, Packet]
    """By query without its id."""
    forms: alike.Forms

    def __bool__(self) -> bool:
        return bool(self.whole or self.forms)

    def clear(self) -> None:
        self.whole.clear()
        self.forms.clear()


Again = tuple[int, Packet]
"""Which of the queries that came together, and its answer."""


def held(
    shelves: Sequence[Shelf | None], rests: Sequence[bytes], filter_: Filter, now: float
) -> tuple[list[Again], list[alike.Query]]:
    """Answers that queries had before and that need nothing more; and the queries that have none on their shelf.

    `rests`: the queries without their ids. One in neither is for the chain.
    """
    again: list[Again] = []
    unknown: list[alike.Query] = []
    for number, (shelf, rest) in enumerate(zip(shelves, rests, strict=True)):
        if shelf is None:
            continue
        packet = shelf.whole.get(rest)
        if packet is None:
            unknown.append((number, rest, shelf.forms))
        elif packet.plain and now < packet.until and packet.filter is filter_:
            again.append((number, packet))
    return again, unknown


class Packets:
    """Shelves of answers, bounded together."""

    def __init__(self) -> None:
        self._shelves: dict[tuple[Client, str], Shelf] = {}
        self._count = 0
        self._forms = 0
        self._asked = set[int]()

    def __len__(self) -> int:
        return self._count

    def shelf(self, client: Client, transport: str) -> Shelf:
        """Where that client's answers stand. It stays empty once all have gone: ask for it again after a miss."""
        key = (client, transport)
        shelf = self._shelves.get(key)
        if shelf is None:
            if len(self._shelves) >= PACKETS_MAX:
                self.clear()
            shelf = self._shelves[key] = Shelf(client, {}, {})
        return shelf

    def asked_before(self, rest: bytes) -> bool:
        """Whether these bytes were asked about not long ago: what is asked for once is not worth its place."""
        return not self.new_among([rest])

    def new_among(self, rests: Sequence[bytes]) -> list[int]:
        """The places of those that were not, and are from now on. Two that come together may both be new."""
        marks, asked = list(map(hash, rests)), self._asked
        new = range(len(marks))
        chosen = list(new) if asked.isdisjoint(marks) else [at for at in new if marks[at] not in asked]
        if len(asked) >= PACKETS_MAX:
            asked.clear()
        asked.update(marks)
        return chosen

    def clear(self) -> None:
        for shelf in self._shelves.values():
            shelf.clear()
        self._shelves.clear()
        self._count = self._forms = 0

    def put(self, shelf: Shelf, query: bytes, resolved: Resolved, asked: Asked, filter_: Filter) -> None:
        """Keep what the chain decided at `asked.now`, if it is of a kind to keep."""
        rest = query[2:]
        if asked.general:
            self._put_form(shelf, query, resolved, asked, filter_)
            if not self.asked_before(rest):  # its form is answer enough
                return
        self._put_whole(shelf, rest, resolved, asked, filter_)

    def _put_form(self, shelf: Shelf, query: bytes, resolved: Resolved, asked: Asked, filter_: Filter) -> None:
        made = alike.form_of(query, asked, resolved, filter_, _minute_end(asked))
        if made is None:
            return
        around, said, form = made
        forms = shelf.forms.get(around, {})
        if said not in forms:
            if self._forms >= FORMS_MAX:
                self.clear()
                return
            self._forms += 1
        shelf.forms.setdefault(around, forms)[said] = form

    def _put_whole(self, shelf: Shelf, rest: bytes, resolved: Resolved, asked: Asked, filter_: Filter) -> None:
        message, kind, question = resolved.message, resolved.verdict.kind, asked.question
        if kind not in _KEPT or not message or len(message) > ANSWER_MAX or len(rest) > QUERY_MAX:
            return
        entry = asked.entry if kind is Kind.CACHED and isinstance(asked.entry, Entry) else None
        until, counted = _minute_end(asked), 0.0
        ttls: tuple[int, ...] = ()
        if entry is not None:
            until = min(until, entry.ends - (entry.ends - entry.stored) * PREFETCH_SHARE)
            counted = entry.stored + int(asked.now - entry.stored) + 1
            if len(message) >= len(entry.body):  # not when it was truncated
                ttls = entry.ttls
        if rest not in shelf.whole:
            if self._count >= PACKETS_MAX:
                self.clear()
                return
            self._count += 1
        plain = not (question.cookie or question.padded)
        shelf.whole[rest] = Packet(
            question.name, message[2:], asked.client, resolved, kind, until, filter_, entry, ttls, plain, counted
        )


def _minute_end(asked: Asked) -> float:
    """Of the wall clock's minute, monotonic."""
    return asked.now + 60.0 - asked.wall % 60.0
