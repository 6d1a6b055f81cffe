"""What an upstream answered, read as far as a forwarder needs it, and handed on without being built anew.

Linear in the size of the message whatever is in it: records are skipped, not decoded; names are expanded only in the
answer section, each pointer target once, and with a budget for the whole message (`_STEPS_MAX`). A reply that breaks a
bound, or is cut off, is no reply.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from warren.fabric.core import dnswire as wire

RECORDS_MAX: Final = 6000
"""Records in one message: as many addresses as 64 KiB hold."""
HOPS_MAX: Final = 16
"""Compression pointers followed within one name."""
CHAIN_MAX: Final = 16
"""CNAMEs followed from the name that was asked for."""
TTL_MAX: Final = 86_400
"""Longer lives are cut to a day (RFC 8767, section 4, allows any cap)."""
_STEPS_MAX: Final = 2048
"""Labels and pointers expanded for one message, all names together."""
_OPTION_EDE: Final = 15
_RECORD = struct.Struct("!HHIH")
_COUNTS = struct.Struct("!HHHHHH")
_TTL = struct.Struct("!I")
_TWO = struct.Struct("!HH")


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What a reply says. Times in seconds, names as lower-case wire names."""

    id: int
    flags: int
    rcode: int
    """With the upper bits that OPT carries."""
    name: bytes
    raw: bytes
    """The question's name as the upstream repeated it, for the comparison of its case."""
    type: int
    cls: int
    end: int
    """Offset past the question."""
    body: bytes
    """The message without OPT and whatever stood behind it: what may be kept and sent on."""
    ttls: tuple[int, ...]
    """Offsets of every TTL in `body`."""
    ttl: int
    """How long it may be kept: smallest TTL; for a negative answer that of RFC 2308, 0 without an SOA."""
    found: int
    """Records of the type asked for in the answer section."""
    addresses: tuple[bytes, ...] = ()
    """4 or 16 bytes each: A and AAAA records of the name asked for, behind its CNAMEs."""
    chain: tuple[bytes, ...] = ()
    """Targets of the CNAMEs that lead from the name asked for, in order."""
    extended: wire.Extended | None = None
    cookie: bytes = b""
    """As OPT carries it: our half, and the server's (RFC 7873)."""

    @property
    def truncated(self) -> bool:
        return bool(self.flags & wire.TC)

    @property
    def authentic(self) -> bool:
        """The AD bit: the upstream validated it."""
        return bool(self.flags & wire.AD)

    @property
    def negative(self) -> bool:
        """No such name, or no data of that type (RFC 2308, section 2)."""
        return self.rcode == wire.NXDOMAIN or (self.rcode == wire.NOERROR and not self.found)


def without_ad(reply: Reply) -> Reply:
    """The same, without the claim that it was validated: for upstreams that are not trusted to say so."""
    flags = reply.flags & ~wire.AD
    body = reply.body[:2] + flags.to_bytes(2, "big") + reply.body[4:]
    return msgspec.structs.replace(reply, flags=flags, body=body)


class _Broken(Exception):
    """The message breaks a bound or is cut off."""


def read_reply(message: bytes) -> Reply | None:
    """Read a reply to one question; None for anything else."""
    if not wire.HEADER <= len(message) <= wire.TCP_MAX:
        return None
    ident, flags, questions, answers, authorities, additional = _COUNTS.unpack_from(message)
    if not flags & wire.QR or questions != 1 or answers + authorities + additional > RECORDS_MAX:
        return None
    try:
        return _Reader(message).read(ident, flags, answers, authorities, additional)
    except (_Broken, struct.error, IndexError):
        return None


class _Reader:
    """One walk over one message."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._steps = 0
        self._known: dict[int, bytes] = {}
        self._ttls: list[int] = []
        self._least = TTL_MAX
        self._rcode_high = 0
        self._extended: wire.Extended | None = None
        self._cookie = b""

    def read(self, ident: int, flags: int, answers: int, authorities: int, additional: int) -> Reply:
        message = self._message
        at = wire.skip_name(message, wire.HEADER)
        if at < 0 or at - wire.HEADER > wire.NAME_MAX:
            raise _Broken
        raw = message[wire.HEADER : at]
        kind, cls = _TWO.unpack_from(message, at)
        name = raw.lower()
        end = at = at + 4
        at, found, addresses, chain = self._answer_section(at, answers, name, kind)
        at, negative_ttl = self._authority_section(at, authorities)
        at, kept = self._additional_section(at, additional)
        body = message[:10] + kept.to_bytes(2, "big") + message[12:at]
        rcode = self._rcode_high << 4 | (flags & 15)
        ttl = self._least if found else min(self._least, negative_ttl)
        return Reply(
            ident,
            flags,
            rcode,
            name,
            raw,
            kind,
            cls,
            end,
            body,
            tuple(self._ttls),
            ttl,
            found,
            tuple(addresses),
            tuple(chain),
            self._extended,
            self._cookie,
        )

    def _answer_section(self, at: int, count: int, name: bytes, kind: int) -> tuple[int, int, list[bytes], list[bytes]]:
        message, found = self._message, 0
        chain: list[bytes] = []
        aliases: dict[bytes, bytes] = {}
        addresses: list[tuple[bytes, bytes]] = []
        for _ in range(count):
            owner_at = at
            at, rtype, start, length = self._record(at)
            found += rtype == kind or kind == wire.ANY
            if rtype == wire.CNAME:
                aliases[self._name(owner_at)] = self._name(start)
            elif (rtype == wire.A and length == 4) or (rtype == wire.AAAA and length == 16):
                addresses.append((self._name(owner_at), message[start : start + length]))
        while kind != wire.CNAME and name in aliases and len(chain) < CHAIN_MAX:
            name = aliases.pop(name)
            chain.append(name)
        return at, found, [address for owner, address in addresses if owner == name], chain

    def _authority_section(self, at: int, count: int) -> tuple[int, int]:
        """The negative TTL: the smaller of the SOA's TTL and its MINIMUM (RFC 2308, section 5)."""
        negative_ttl = 0
        for _ in range(count):
            ttl_at = wire.skip_name(self._message, at) + 4
            at, rtype, start, length = self._record(at)
            if rtype == wire.SOA and length >= 22:
                own = _TTL.unpack_from(self._message, ttl_at)[0]
                negative_ttl = min(own, _TTL.unpack_from(self._message, start + length - 4)[0], TTL_MAX)
        return at, negative_ttl

    def _additional_section(self, at: int, count: int) -> tuple[int, int]:
        """The end of what is kept, and how many records that is: all before OPT, which is ours hop by hop."""
        end, kept, opt_seen = at, 0, False
        for _ in range(count):
            at, rtype, start, length = self._record(at, keep=not opt_seen)
            if rtype == wire.OPT and not opt_seen:
                opt_seen = True
                self._read_opt(start, length)
            elif not opt_seen:
                end, kept = at, kept + 1
        return end, kept

    def _record(self, at: int, *, keep: bool = True) -> tuple[int, int, int, int]:
        """(offset past it, type, offset and length of its data)."""
        at = wire.skip_name(self._message, at)
        if at < 0:
            raise _Broken
        rtype, _, ttl, length = _RECORD.unpack_from(self._message, at)
        if at + 10 + length > len(self._message):
            raise _Broken
        if keep and rtype != wire.OPT:
            self._ttls.append(at + 4)
            self._least = min(self._least, ttl if ttl < 0x8000_0000 else 0)  # RFC 2181, section 8
        return at + 10 + length, rtype, at + 10, length

    def _read_opt(self, start: int, length: int) -> None:
        self._rcode_high = self._message[start - 6]
        at, end = start, start + length
        while at + 4 <= end:
            code, size = _TWO.unpack_from(self._message, at)
            at += 4
            if code == _OPTION_EDE and size >= 2 and at + size <= end and self._extended is None:
                text = self._message[at + 2 : at + size].decode("utf-8", "replace")
                info = int.from_bytes(self._message[at : at + 2], "big")
                self._extended = wire.Extended(info, text.rstrip("\x00")[: wire.EDE_TEXT_MAX])
            elif code == wire.OPTION_COOKIE and size in wire.COOKIE_LENGTHS and at + size <= end:
                self._cookie = self._message[at : at + size]
            at += size

    def _name(self, at: int) -> bytes:
        """The expanded name at `at`; pointers go backwards only, and each target is expanded once."""
        message, parts, size, hops, limit = self._message, [], 1, 0, at
        entered: list[tuple[int, int]] = []
        while True:
            self._steps += 1
            if self._steps > _STEPS_MAX:
                raise _Broken
            length = message[at]
            if not length:
                tail = b"\x00"
                break
            if length < 0xC0:
                if length > wire.LABEL_MAX or (size := size + length + 1) > wire.NAME_MAX:
                    raise _Broken
                parts.append(message[at : at + length + 1])
                at += length + 1
                continue
            at = (length & 0x3F) << 8 | message[at + 1]
            hops += 1
            if at >= limit or hops > HOPS_MAX:
                raise _Broken
            if (known := self._known.get(at)) is not None:
                tail = known
                self._steps -= 1
                break
            limit = at
            entered.append((at, len(parts)))
        if sum(map(len, parts)) + len(tail) > wire.NAME_MAX:
            raise _Broken
        head = b"".join(parts).lower()
        for target, skipped in entered:
            self._known[target] = b"".join(parts[skipped:]).lower() + tail
        return head + tail


def render(
    body: bytes,
    ttls: tuple[int, ...],
    question: wire.Question,
    elapsed: int = 0,
    *,
    limit: int = wire.TCP_MAX,
    extended: wire.Extended | None = None,
    cap: int = 0,
) -> bytes:
    """The kept body as the answer to `question`: its id, flags, spelling, and TTLs `elapsed` seconds later.

    With `cap` above 0 no TTL is larger (a stale answer; RFC 8767, section 4, recommends 30 s). Longer than `limit`: TC.
    The caller has checked that the body answers the same name, type and class.
    """
    out = bytearray(body)
    asked = question.flags
    flags = (body[2] << 8 | body[3]) & ~(wire.RD | wire.CD | wire.AA | wire.AD | wire.TC) | wire.QR | wire.RA
    flags |= asked & (wire.RD | wire.CD)
    if asked & wire.AD or question.dnssec_ok:  # RFC 6840, section 5.8
        flags |= body[3] & wire.AD
    _TWO.pack_into(out, 0, question.id, flags)
    out[wire.HEADER : wire.HEADER + len(question.raw)] = question.raw
    for at in ttls:
        left = max(min(_TTL.unpack_from(body, at)[0], TTL_MAX) - elapsed, 0)
        _TTL.pack_into(out, at, min(left, cap) if cap else left)
    tail = wire.opt_record(question.dnssec_ok, extended=extended) if question.edns else b""
    if len(out) + len(tail) > limit:
        del out[question.end :]
        _COUNTS.pack_into(out, 0, question.id, flags | wire.TC, 1, 0, 0, 0)
    if tail:
        additional = (out[10] << 8 | out[11]) + 1
        _TWO.pack_into(out, 8, out[8] << 8 | out[9], additional)
        out += tail
    return bytes(out)
