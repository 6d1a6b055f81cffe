"""DNS messages on the wire, without a full decode: names, questions, answers that we make ourselves (RFC 1035).

The order of a query: `read_question` guards it and finds what it asks; somebody decides; `answer_*` builds the reply
out of the question as it was asked (0x20 case kept). What an upstream says is read in `dnsreply.py`.

Names are *wire names*: lower case, length bytes, root byte at the end (`b"\\x07payroll\\x08internal\\x00"`). Length
bytes are below 64 and letters above, so `bytes.lower` on a whole wire name is right. Every function is total on what
a peer sent and linear in its size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import msgspec

HEADER: Final = 12
QUERY_MAX: Final = 4096
"""Bytes of a query that we look at; padding (RFC 8467) and cookies stay far below."""
NAME_MAX: Final = 255
"""RFC 1035, section 3.1."""
LABEL_MAX: Final = 63
ADDITIONAL_MAX: Final = 2
"""Additional records that a query may carry: OPT, and TSIG or SIG(0), which we skip."""
UDP_MIN: Final = 512
"""What a client without EDNS takes over UDP (RFC 1035, section 4.2.1)."""
UDP_MAX: Final = 1232
"""What we offer, and the most that we send over UDP: no fragments on any IPv6 path (RFC 9715)."""
TCP_MAX: Final = 65535

A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
HINFO: Final = 13
MX: Final = 15
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
DNAME: Final = 39
OPT: Final = 41
DS: Final = 43
SVCB: Final = 64
HTTPS: Final = 65
IXFR: Final = 251
AXFR: Final = 252
ANY: Final = 255
IN: Final = 1

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16
BADCOOKIE: Final = 23

QR: Final = 0x8000
AA: Final = 0x0400
TC: Final = 0x0200
RD: Final = 0x0100
RA: Final = 0x0080
AD: Final = 0x0020
CD: Final = 0x0010
_OPCODE: Final = 0x7800
_DO: Final = 0x8000
_VERSION: Final = 0xFF0000
_BARE_OPT: Final = b"\x00\x00\x29"
"""The root as owner, and the type."""

_COUNTS = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_TWO = struct.Struct("!HH")
QUESTION_NAME: Final = b"\xc0\x0c"
"""A pointer to it, which may stand for a wire name in records of ours that are compressed (RFC 1035, section 4.1.4)."""
OPTION_COOKIE: Final = 10
_OPTION_PADDING: Final = 12
_OPTION_EDE: Final = 15
COOKIE_LENGTHS: Final = frozenset({8, *range(16, 41)})
"""Bytes that a cookie may have: the client's half, and both (RFC 7873, section 4)."""
_COOKIE_ROOM: Final = 28
"""What the cookie of an answer of ours takes: 8 and 16 bytes, and the option's header."""
EDE_TEXT_MAX: Final = 200
"""Bytes of an extended error's text: it must never be what truncates an answer."""


class Extended(msgspec.Struct, frozen=True, gc=False):
    """An extended DNS error (RFC 8914): info-code and words for the user."""

    code: int
    text: str = ""


# RFC 8914, section 4.
EDE_OTHER: Final = 0
EDE_STALE_ANSWER: Final = 3
EDE_BOGUS: Final = 6
EDE_BLOCKED: Final = 15
EDE_CENSORED: Final = 16
EDE_FILTERED: Final = 17
EDE_PROHIBITED: Final = 18
EDE_STALE_NXDOMAIN: Final = 19
EDE_NOT_SUPPORTED: Final = 21
EDE_NO_REACHABLE_AUTHORITY: Final = 22
EDE_NETWORK_ERROR: Final = 23


class Question(msgspec.Struct, frozen=True, gc=False):
    """What a guarded query asks."""

    id: int
    flags: int
    """The header's second 16 bits."""
    name: bytes
    """Wire name, lower case."""
    raw: bytes
    """The same bytes with the case as asked."""
    type: int
    cls: int
    end: int
    """Offset past the question."""
    edns: bool = False
    udp_size: int = UDP_MIN
    """What the client takes over UDP: at least 512, at most 1232."""
    dnssec_ok: bool = False
    padded: bool = False
    """It carries padding, so the answer should too (RFC 7830)."""
    cookie: bytes = b""
    """The client's cookie, with ours behind it if it has one (RFC 7873)."""

    @property
    def text(self) -> str:
        """The name in presentation form, without the final dot."""
        return name_text(self.name)


class Unreadable(msgspec.Struct, frozen=True, gc=False):
    """A query that is not decided on: `answer` goes back, or nothing when it is empty."""

    answer: bytes
    why: str


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of an answer of ours. `owner` is a wire name, or empty for the question's own."""

    type: int
    rdata: bytes
    ttl: int
    owner: bytes = b""


# ---------------------------------------------------------------------------------------------------------- questions


def read_question(message: bytes) -> Question | Unreadable:
    """Guard a query and find its question: one question, no records but OPT and one more, no pointer in the name."""
    size = len(message)
    if size < HEADER:
        return Unreadable(b"", "shorter than a header")
    ident, flags, questions, answers, authorities, additional = _COUNTS.unpack_from(message)
    if flags & QR:
        return Unreadable(b"", "an answer, where a query is due")
    if flags & _OPCODE:
        return Unreadable(_bare(ident, flags, NOTIMP), "an opcode other than QUERY")
    if size > QUERY_MAX or questions != 1 or answers or authorities or additional > ADDITIONAL_MAX:
        return Unreadable(_bare(ident, flags, FORMERR), "sections that a query does not have")
    at = HEADER
    while True:
        length = message[at] if at < size else LABEL_MAX + 1
        at += 1
        if not length:
            break
        at += length
        if length > LABEL_MAX or at - HEADER >= NAME_MAX:
            return Unreadable(_bare(ident, flags, FORMERR), "a name that is none")
    if at + 4 > size:
        return Unreadable(_bare(ident, flags, FORMERR), "cut off in the question")
    raw = message[HEADER:at]
    kind, cls = _TWO.unpack_from(message, at)
    at += 4
    if additional == 1 and at + 11 == size and message[at : at + 3] == _BARE_OPT:  # what most ask, at half the price
        _, payload, ttl, length = _RECORD.unpack_from(message, at + 1)
        if not length and not ttl & _VERSION:
            udp_size = UDP_MAX if payload >= UDP_MAX else max(UDP_MIN, payload)
            return Question(ident, flags, raw.lower(), raw, kind, cls, at, True, udp_size, bool(ttl & _DO))
    question = Question(ident, flags, raw.lower(), raw, kind, cls, at)
    return question if not additional and at == size else _with_additional(message, question, additional)


def _with_additional(message: bytes, question: Question, count: int) -> Question | Unreadable:
    at, size, found = question.end, len(message), None
    malformed = Unreadable(_bare(question.id, question.flags, FORMERR), "additional records that are none")
    for _ in range(count):
        owner = at
        if (at := skip_name(message, at)) < 0 or at + 10 > size:
            return malformed
        kind, cls, ttl, length = _RECORD.unpack_from(message, at)
        at += 10 + length
        if at > size:
            return malformed
        if kind == OPT:
            if found is not None or message[owner]:
                return malformed
            found = (cls, ttl, *_options(message, at - length, at))
    if at != size:
        return malformed
    if found is None:
        return question
    asked = msgspec.structs.replace(
        question,
        edns=True,
        udp_size=max(UDP_MIN, min(UDP_MAX, found[0])),
        dnssec_ok=bool(found[1] & _DO),
        padded=found[2],
        cookie=found[3],
    )
    if asked.cookie and len(asked.cookie) not in COOKIE_LENGTHS:
        return malformed
    if found[1] >> 16 & 0xFF:
        return Unreadable(answer(asked, BADVERS), "an EDNS version above 0")  # RFC 6891, section 6.1.3
    return asked


def _options(message: bytes, at: int, end: int) -> tuple[bool, bytes]:
    """(whether there is padding, the cookie) among the options of an OPT record."""
    has_padding, cookie = False, b""
    while at + 4 <= end:
        code, length = _TWO.unpack_from(message, at)
        at += 4 + length
        if code == _OPTION_PADDING:
            has_padding = True
        elif code == OPTION_COOKIE and at <= end and not cookie:  # the first counts (RFC 7873, section 5.2.2)
            cookie = message[at - length : at] or b"\x00"
    return has_padding, cookie


def padded(message: bytes, block: int) -> bytes:
    """A message of ours with padding in its OPT, so that its length tells little (RFC 8467); without OPT as it was."""
    fill = -(len(message) + 4) % block
    return with_option(message, _OPTION_PADDING, bytes(fill)) if len(message) + 4 + fill <= TCP_MAX else message


def with_option(message: bytes, code: int, data: bytes) -> bytes:
    """A message of ours with one more option in its OPT; without OPT as it was.

    OPT is the last record of every message that is made here.
    """
    additional = message[10] << 8 | message[11]
    if not additional:
        return message
    at = HEADER if message[4:6] == b"\x00\x00" else skip_name(message, HEADER) + 4
    for _ in range(sum(_COUNTS.unpack_from(message)[3:]) - 1):
        at = skip_name(message, at)
        at += 10 + _RECORD.unpack_from(message, at)[3]
    if _TWO.unpack_from(message, at + 1)[0] != OPT:
        return message
    out = bytearray(message)
    out[at + 9 : at + 11] = (len(message) - at - 11 + 4 + len(data)).to_bytes(2, "big")
    return bytes(out + _TWO.pack(code, len(data)) + data)


def skip_name(message: bytes, at: int) -> int:
    """The offset past the (perhaps compressed) name at `at`, or -1 where there is none."""
    size = len(message)
    while at < size:
        length = message[at]
        if not length:
            return at + 1
        if length >= 0xC0:
            return at + 2 if at + 2 <= size else -1
        if length > LABEL_MAX:
            return -1
        at += 1 + length
    return -1


def build_query(
    ident: int,
    raw: bytes,
    kind: int,
    cls: int = IN,
    *,
    dnssec_ok: bool = False,
    flags: int = RD,
    edns: bool = True,
    cookie: bytes = b"",
) -> bytes:
    """A query of ours: `raw` is a wire name in whatever case; EDNS offers UDP_MAX bytes."""
    head = _COUNTS.pack(ident, flags, 1, 0, 0, 1 if edns else 0) + raw + _TWO.pack(kind, cls)
    if not edns:
        return head
    options = _TWO.pack(OPTION_COOKIE, len(cookie)) + cookie if cookie else b""
    return head + b"\x00" + _RECORD.pack(OPT, UDP_MAX, _DO if dnssec_ok else 0, len(options)) + options


# ------------------------------------------------------------------------------------------------------------ answers


def answer(
    question: Question,
    rcode: int = NOERROR,
    records: Iterable[Record] = (),
    authority: Iterable[Record] = (),
    extended: Extended | None = None,
    *,
    authoritative: bool = False,
    limit: int = TCP_MAX,
) -> bytes:
    """An answer to that question. Longer than `limit` (see `limit_for`): no records, and TC set."""
    answers, count = _pack(records)
    below, authorities = _pack(authority)
    flags = QR | RA | (question.flags & (RD | CD)) | (AA if authoritative else 0) | (rcode & 15)
    tail = _opt(question.dnssec_ok, rcode >> 4, extended) if question.edns else b""
    asked = question.raw + _TWO.pack(question.type, question.cls)
    extra = 1 if tail else 0
    if HEADER + len(asked) + len(answers) + len(below) + len(tail) > limit:
        return _COUNTS.pack(question.id, flags | TC, 1, 0, 0, extra) + asked + tail
    return _COUNTS.pack(question.id, flags, 1, count, authorities, extra) + asked + answers + below + tail


def limit_for(question: Question, transport: str) -> int:
    """Bytes that an answer to it may have: what the client takes over "udp", 65535 over everything else."""
    if transport != "udp":
        return TCP_MAX
    return question.udp_size - _COOKIE_ROOM if question.cookie else question.udp_size


class Ending(msgspec.Struct, frozen=True, gc=False):
    """What an answer has besides its question, when nothing of it depends on the name."""

    flags: int
    counts: bytes
    rest: bytes


def ending_of(message: bytes, question: Question) -> Ending:
    """Of an answer of ours to that question; records in it that speak of the name do so by `QUESTION_NAME`."""
    flags = _TWO.unpack_from(message)[1] & ~(RD | CD)
    return Ending(flags, message[4:HEADER], message[HEADER + len(question.raw) + 4 :])


def answer_with(question: Question, ending: Ending) -> bytes:
    """The same answer to another question with the same EDNS."""
    head = _TWO.pack(question.id, ending.flags | question.flags & (RD | CD)) + ending.counts
    return b"%b%b%b%b" % (head, question.raw, _TWO.pack(question.type, question.cls), ending.rest)


def answer_addresses(question: Question, addresses: Iterable[bytes], ttl: int, *, limit: int = TCP_MAX) -> bytes:
    """Addresses (4 or 16 bytes each) of the family that was asked for; NODATA where there is none of it."""
    size = {A: 4, AAAA: 16}.get(question.type, 0)
    records = [Record(question.type, address, ttl) for address in addresses if len(address) == size]
    return answer(question, records=records, authoritative=True, limit=limit)


def answer_pointer(question: Question, target: bytes, ttl: int, *, limit: int = TCP_MAX) -> bytes:
    """One PTR record: `target` is a wire name."""
    return answer(question, records=[Record(PTR, target, ttl)], authoritative=True, limit=limit)


def soa(zone: bytes, negative_ttl: int, contact: bytes = b"\x06nobody\x07invalid\x00") -> Record:
    """An SOA that lets the asker keep a negative answer for `negative_ttl` seconds (RFC 2308, section 5)."""
    timers = struct.pack("!IIIII", 1, 3600, 1200, 604800, negative_ttl)
    return Record(SOA, zone + contact + timers, negative_ttl, owner=zone)


def refusal(message: bytes, rcode: int = SERVFAIL) -> bytes:
    """A bare answer to anything that has a header: id, opcode, RD and CD of the query, no question. b"" without one."""
    if len(message) < HEADER:
        return b""
    ident, flags = _TWO.unpack_from(message)
    return b"" if flags & QR else _bare(ident, flags, rcode)


def _bare(ident: int, flags: int, rcode: int) -> bytes:
    return _COUNTS.pack(ident, QR | RA | (flags & (_OPCODE | RD | CD)) | rcode, 0, 0, 0, 0)


def _pack(records: Iterable[Record]) -> tuple[bytes, int]:
    parts = []
    for record in records:
        parts.append(record.owner or QUESTION_NAME)
        parts.append(_RECORD.pack(record.type, IN, record.ttl, len(record.rdata)))
        parts.append(record.rdata)
    return b"".join(parts), len(parts) // 3


def _opt(dnssec_ok: bool, rcode_high: int, extended: Extended | None) -> bytes:
    options = b"" if extended is None else ede_option(extended)
    ttl = (rcode_high & 0xFF) << 24 | (_DO if dnssec_ok else 0)
    return b"\x00" + _RECORD.pack(OPT, UDP_MAX, ttl, len(options)) + options


def ede_option(extended: Extended) -> bytes:
    """An extended error as an EDNS option (RFC 8914, section 2); the text is cut at a character's border."""
    text = extended.text.encode()[:EDE_TEXT_MAX].decode("utf-8", "ignore").encode()
    return struct.pack("!HHH", _OPTION_EDE, 2 + len(text), extended.code) + text


def opt_record(dnssec_ok: bool, rcode: int = NOERROR, extended: Extended | None = None) -> bytes:
    """Our OPT record, for the end of an answer's additional section."""
    return _opt(dnssec_ok, rcode >> 4, extended)


# -------------------------------------------------------------------------------------------------------------- names

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_*/")


def name_text(wire: bytes) -> str:
    """Presentation form without the final dot ("." for the root); odd bytes as in RFC 1035, section 5.1."""
    labels = []
    at = 0
    while at < len(wire) and (length := wire[at]):
        label = wire[at + 1 : at + 1 + length]
        if _PLAIN.issuperset(label):
            labels.append(label.decode("ascii"))
        else:
            labels.append("".join(_escaped(byte) for byte in label))
        at += 1 + length
    return ".".join(labels) or "."


def _escaped(byte: int) -> str:
    if byte in _PLAIN:
        return chr(byte)
    return f"\\{chr(byte)}" if 0x21 <= byte <= 0x7E else f"\\{byte:03d}"


def name_wire(text: str) -> bytes:
    """The wire name of a host name or of presentation form; letters beyond ASCII become A-labels. Else ValueError."""
    if text in (".", ""):
        return b"\x00"
    if not text.isascii():
        text = text.encode("idna").decode("ascii")  # UnicodeError is a ValueError
    labels = _split_escaped(text) if "\\" in text else text.encode("ascii").split(b".")
    if not labels[-1]:
        labels.pop()
    for label in labels:
        if not 0 < len(label) <= LABEL_MAX:
            raise ValueError(f"not a domain name: {text[:80]!r}")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"
    if len(wire) > NAME_MAX:
        raise ValueError(f"longer than 253 characters: {text[:80]!r}")
    return wire.lower()


def _split_escaped(text: str) -> list[bytes]:
    labels, label, at = [], bytearray(), 0
    while at < len(text):
        char = text[at]
        if char == ".":
            labels.append(bytes(label))
            label = bytearray()
        elif char == "\\":
            digits = text[at + 1 : at + 4]
            if len(digits) == 3 and digits.isdigit() and int(digits) < 256:
                label.append(int(digits))
                at += 3
            elif digits and not digits[0].isdigit():
                label += digits[0].encode("ascii")
                at += 1
            else:
                raise ValueError(f"not a domain name: {text[:80]!r}")
        else:
            label += char.encode("ascii")
        at += 1
    labels.append(bytes(label))
    return labels


def suffixes(wire: bytes) -> Iterable[bytes]:
    """The name, its parent, and so on, without the root."""
    at = 0
    while wire[at]:
        yield wire[at:]
        at += 1 + wire[at]


def is_under(wire: bytes, zone: bytes) -> bool:
    """Whether `wire` is the zone itself or a name under it; both wire names in lower case."""
    if not wire.endswith(zone):
        return False
    at, start = 0, len(wire) - len(zone)
    while at < start:
        at += 1 + wire[at]
    return at == start
