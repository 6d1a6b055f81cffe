"""Records of an answer, each on its own: names expanded, so that a record may move to another message.

`read_sections` decodes what a private resolver said; `near` keeps of it what leads nowhere past the names that are
`under` a hostname route (an agent gives those synthetic addresses); `reverse_address` reads names such as
5.0.10.10.in-addr.arpa. Pure, total, linear in the message: pointers go backwards only and the labels expanded for one
message are bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import msgspec

from warren.fabric.core import dnswire as wire

RECORDS_MAX: Final = 2000
"""Records read of one answer; 32 KiB (what a connector sends on) hold no more but empty ones."""
CHAIN_MAX: Final = 16
"""CNAMEs followed from the name that was asked for."""
TTL_MAX: Final = 86_400
"""Longer lives are cut to a day (RFC 8767, section 4, allows any cap)."""
_STEPS_MAX: Final = 16_384
"""Labels and pointers expanded for one message: eight for each record."""
_HINTS: Final = frozenset({4, 6})
"""SvcParamKeys ipv4hint and ipv6hint (RFC 9460, section 7.3)."""
_MANDATORY: Final = 0
_RECORD = struct.Struct("!HHIH")
_COUNTS = struct.Struct("!HHHHHH")
_TWO = struct.Struct("!HH")

_LAYOUTS: Final[dict[int, tuple[int, int]]] = {
    **dict.fromkeys((2, 3, 4, 5, 7, 8, 9, 12, 39), (0, 1)),  # NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
    **dict.fromkeys((15, 18, 21, 36), (2, 1)),  # MX, AFSDB, RT, KX: a preference and a name
    **dict.fromkeys((6, 14, 17), (0, 2)),  # SOA, MINFO, RP
    26: (2, 2),  # PX
    33: (6, 1),  # SRV
}
"""Type → (bytes in front, names behind them). RFC 3597, section 4: no other type may be compressed."""

_LEADS: Final = frozenset({2, 3, 4, 5, 7, 8, 9, 12, 15, 18, 21, 33, 36, 39})
"""Types whose last name is a host that the asker goes to next."""


class Sections(msgspec.Struct, frozen=True, gc=False):
    """An answer in records. Their owners are wire names in lower case."""

    rcode: int
    answers: tuple[wire.Record, ...]
    authority: tuple[wire.Record, ...]


class Near(msgspec.Struct, frozen=True, gc=False):
    """What is given to the asker: `records` have the question's own name; `left_out`: how many led elsewhere."""

    records: tuple[wire.Record, ...]
    left_out: int


class _Broken(Exception):
    """The message breaks a bound or is cut off."""


def read_sections(message: bytes) -> Sections | None:
    """An answer to one question; None for anything else. OPT and the additional section are left out."""
    if not wire.HEADER <= len(message) <= wire.TCP_MAX:
        return None
    _, flags, questions, answers, authorities, _ = _COUNTS.unpack_from(message)
    if not flags & wire.QR or questions != 1 or answers + authorities > RECORDS_MAX:
        return None
    at = wire.skip_name(message, wire.HEADER)
    if at < 0:
        return None
    reader = _Reader(message, at + 4)
    try:
        return Sections(flags & 15, reader.records(answers), reader.records(authorities))
    except (_Broken, struct.error, IndexError):
        return None


class _Reader:
    """One walk over one message."""

    def __init__(self, message: bytes, at: int) -> None:
        self._message = message
        self._at = at
        self._steps = 0

    def records(self, count: int) -> tuple[wire.Record, ...]:
        return tuple(self._record() for _ in range(count))

    def _record(self) -> wire.Record:
        owner, at = self._name(self._at)
        kind, _, ttl, length = _RECORD.unpack_from(self._message, at)
        at += _RECORD.size
        self._at = at + length
        if self._at > len(self._message):
            raise _Broken
        ttl = min(ttl, TTL_MAX) if ttl < 0x8000_0000 else 0  # RFC 2181, section 8
        return wire.Record(kind, self._data(kind, at, self._at), ttl, owner.lower())

    def _data(self, kind: int, at: int, end: int) -> bytes:
        layout = _LAYOUTS.get(kind)
        if layout is None:
            return self._message[at:end]
        fixed, names = layout
        parts = [self._message[at : at + fixed]]
        at += fixed
        for _ in range(names):
            name, at = self._name(at)
            parts.append(name)
        if at > end:
            raise _Broken
        return b"".join([*parts, self._message[at:end]])

    def _name(self, at: int) -> tuple[bytes, int]:
        """(the expanded name at `at` with its case, offset past it)."""
        message, parts, size, limit, past = self._message, list[bytes](), 1, at, -1
        while True:
            self._steps += 1
            if self._steps > _STEPS_MAX:
                raise _Broken
            length = message[at]
            if length >= 0xC0:
                past = at + 2 if past < 0 else past
                at = (length & 0x3F) << 8 | message[at + 1]
                if at >= limit:
                    raise _Broken
                limit = at
                continue
            if length > wire.LABEL_MAX or (length and (size := size + length + 1) > wire.NAME_MAX):
                raise _Broken
            if at + 1 + length > len(message):
                raise _Broken
            parts.append(message[at : at + length + 1])
            at += length + 1
            if not length:
                return b"".join(parts), at if past < 0 else past


# ---------------------------------------------------------------------------------------------- what leads nowhere else


def near(sections: Sections, question: wire.Question, under: Callable[[bytes], bool]) -> Near:
    """The records that answer the question, CNAMEs flattened to its name, without those that lead elsewhere.

    `under(wire name in lower case)`: whether a name lies under a hostname route. Hints of addresses are taken out of
    HTTPS and SVCB records (RFC 9460). No A and AAAA records come out: addresses are the agent's to give.
    """
    kept, left_out = list[wire.Record](), 0
    if question.type in (wire.A, wire.AAAA):
        return Near((), 0)
    owner = question.name if question.type == wire.CNAME else _end_of_chain(sections, question.name)
    for record in sections.answers:
        if record.owner != owner or record.type != question.type:
            continue
        data = _tamed(record, under)
        if data is None:
            left_out += 1
        else:
            kept.append(wire.Record(record.type, data, record.ttl))
    return Near(tuple(kept), left_out)


def negative_authority(sections: Sections) -> tuple[wire.Record, ...]:
    """The SOA that says how long a negative answer may be kept (RFC 2308, section 3)."""
    return tuple(record for record in sections.authority if record.type == wire.SOA)[:1]


def _end_of_chain(sections: Sections, name: bytes) -> bytes:
    aliases = {record.owner: record.rdata.lower() for record in sections.answers if record.type == wire.CNAME}
    for _ in range(CHAIN_MAX):
        target = aliases.pop(name, None)
        if target is None:
            break
        name = target
    return name


def _tamed(record: wire.Record, under: Callable[[bytes], bool]) -> bytes | None:
    """Its data without address hints; None if it leads to a name that is not `under` a hostname route."""
    if record.type in (wire.SVCB, wire.HTTPS):
        return _without_hints(record.rdata, under)
    if record.type in _LEADS:
        target = record.rdata[_LAYOUTS[record.type][0] :].lower()
        # The root says that there is no such service (RFC 2782, RFC 7505), and leads nowhere.
        return record.rdata if target == b"\x00" or under(target) else None
    return record.rdata


def _without_hints(data: bytes, under: Callable[[bytes], bool]) -> bytes | None:
    """RFC 9460, section 2.2: priority, target, parameters by key. None also for what can't be read."""
    end = wire.skip_name(data, 2)
    target = data[2:end].lower()
    if end < 0 or (target != b"\x00" and not under(target)):
        return None
    parameters, at = list[tuple[int, bytes]](), end
    while at < len(data):
        if at + 4 > len(data):
            return None
        key, length = _TWO.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            return None
        parameters.append((key, data[at : at + length]))
        at += length
    parts = [data[:end]]
    for key, value in parameters:
        if key in _HINTS:
            continue
        if key == _MANDATORY:
            wanted = [value[i : i + 2] for i in range(0, len(value), 2)]
            value = b"".join(word for word in wanted if int.from_bytes(word, "big") not in _HINTS)
            if not value:
                continue
        parts.append(_TWO.pack(key, len(value)) + value)
    return b"".join(parts)


# ------------------------------------------------------------------------------------------------------ reverse names

_IN_ADDR: Final = wire.name_wire("in-addr.arpa")
_IP6: Final = wire.name_wire("ip6.arpa")


def reverse_address(name: bytes) -> bytes | None:
    """The packed address that a lower-case wire name under in-addr.arpa or ip6.arpa stands for in full (RFC 3596)."""
    if wire.is_under(name, _IN_ADDR):
        return _packed(name, 4, 10)
    if wire.is_under(name, _IP6):
        nibbles = _packed(name, 32, 16)
        if nibbles is None or max(nibbles) > 15:
            return None
        return bytes(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))
    return None


def _packed(name: bytes, count: int, base: int) -> bytes | None:
    """The labels before the last two as numbers, the last first; None if they are not `count` numbers below 256."""
    labels = [label.decode("ascii", "replace") for label in _labels(name)][:-2]
    numbers = bytearray()
    for label in reversed(labels):
        if len(labels) != count or len(label) > 3 or not label.isascii() or not label.isalnum():
            return None
        try:
            number = int(label, base)
        except ValueError:
            return None
        if number > 255:
            return None
        numbers.append(number)
    return bytes(numbers) if len(numbers) == count else None


def _labels(name: bytes) -> list[bytes]:
    labels, at = list[bytes](), 0
    while name[at]:
        labels.append(name[at + 1 : at + 1 + name[at]])
        at += 1 + name[at]
    return labels
