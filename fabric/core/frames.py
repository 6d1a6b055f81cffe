"""Circuit packets: the 8-byte header of data, and circuit control (protocol.md, sections 1 and 2).

All numbers are big-endian. Whatever begins otherwise is QUIC and no business of this module.

    header, of data and of control alike                    id of data: the circuit's
     0                   1                                  id of control: the slot's; of a hint: that of the
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7    …    63         packet that it answers
    +---+-+---+-----+---------------------------+
    |0 0|C|ver|0 0 0|        id, 56 bits        |           C: 0 data, 1 control; ver: 1
    +---+-+---+-----+---------------------------+

    Bind       header | 0 | flags | counter 64 | mac 128 | zeros up to 1452, 1400 or 1232 bytes
    Challenge  header | 1 | 0     | counter 64 | time 64 | size 16 | cookie mac 128 | zeros up to the Bind's length
    Answer     header | 2 | flags | counter 64 | time 64 | size 16 | cookie mac 128 | mac 128
    Bound      header | 3 | how   | counter 64 | generation 32 | size 16 | mac 128
    Rebind?    header | 4
    Unknown    header | 5

flags: bit 0 = the node's network changed. how: one bit for each of the slot's last eight changes of address, the newest
lowest: 0 = only the port changed. A mac is BLAKE2b-128 with the slot's key over direction, header, kind and all that
stands before the mac, and over the packet's length.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import NamedTuple

from warren.fabric.core.engine import DATAGRAM_SIZES, Buffer

HEADER = 8
ID = 7
KEY = 16
MAC = 16
COOKIE = 26
VERSION = 1
DATA = VERSION << 3
"""First byte of a data packet."""
CONTROL = 0x20 | VERSION << 3
"""First byte of a control packet."""
NOT_CIRCUIT = 0xC0
"""Bits of a first byte of which one is set in everything that is no circuit packet."""

SIZES = tuple(size + HEADER for size in DATAGRAM_SIZES)
"""Lengths of the three Binds: UDP payloads that an IPv6 path of 1500, 1448 and 1280 bytes takes."""
SMALLEST = SIZES[-1]
LARGEST = SIZES[0]

BIND, CHALLENGE, ANSWER, BOUND, REBIND, UNKNOWN = range(6)
HINT_LENGTH = HEADER + 1
MOVED = 1
"""Flag: the node says that its network changed."""

_HEAD = struct.Struct(">B7sBBQ")
_COOKIE = struct.Struct(">QH16s")
_BOUND = struct.Struct(">IH")
_TO_SWITCH, _TO_NODE = b"\0", b"\1"
_PERSON = b"warren-slot/1"
_ZEROS = bytes(LARGEST)

_BIND_BODY = _HEAD.size
_BIND_LENGTH = _BIND_BODY + MAC
_CHALLENGE_LENGTH = _HEAD.size + COOKIE
_ANSWER_BODY = _HEAD.size + COOKIE
_BOUND_BODY = _HEAD.size + _BOUND.size


class Cookie(NamedTuple):
    """What the switch lets the node keep for it. `time`: milliseconds of the switch's clock; `size`: of the Bind."""

    time: int
    size: int
    mac: bytes

    def pack(self) -> bytes:
        return _COOKIE.pack(*self)


class Bind(NamedTuple):
    """Node → switch: this slot's traffic comes from where this packet comes from. `size`: its own length."""

    slot: bytes
    counter: int
    moved: bool
    size: int


class Challenge(NamedTuple):
    """Switch → node: show that you receive there. It proves nothing: it has no mac."""

    slot: bytes
    counter: int
    cookie: Cookie


class Answer(NamedTuple):
    """Node → switch: I do."""

    slot: bytes
    counter: int
    moved: bool
    cookie: Cookie


class Bound(NamedTuple):
    """Switch → node: the binding holds. `generation`: how often the address has changed; `how`: see above."""

    slot: bytes
    counter: int
    generation: int
    how: int
    size: int


class Rebind(NamedTuple):
    """Switch → whoever: a packet with this id came from an address that does not own the slot."""

    id: bytes


class Unknown(NamedTuple):
    """Switch → whoever: this id is not known here."""

    id: bytes


Control = Bind | Challenge | Answer | Bound | Rebind | Unknown


def header(circuit: bytes) -> bytes:
    """What every data packet of a circuit begins with. `circuit`: 7 bytes."""
    return bytes((DATA,)) + circuit


def is_circuit(buffer: Buffer) -> bool:
    """Whether the first packet of a buffer is a circuit packet (else QUIC's, or nobody's)."""
    return len(buffer) > 0 and not buffer[0] & NOT_CIRCUIT


# ---- encoding ----


def bind(slot: bytes, key: bytes, counter: int, moved: bool, size: int) -> bytes:
    """A Bind of `size` bytes, one of SIZES."""
    body = _HEAD.pack(CONTROL, slot, BIND, MOVED if moved else 0, counter)
    return (body + _mac(key, _TO_SWITCH, body, size)).ljust(size, b"\0")


def challenge(slot: bytes, counter: int, cookie: Cookie) -> bytes:
    """A Challenge as long as the Bind that it answers."""
    return (_HEAD.pack(CONTROL, slot, CHALLENGE, 0, counter) + cookie.pack()).ljust(cookie.size, b"\0")


def answer(slot: bytes, key: bytes, counter: int, moved: bool, cookie: Cookie) -> bytes:
    body = _HEAD.pack(CONTROL, slot, ANSWER, MOVED if moved else 0, counter) + cookie.pack()
    return body + _mac(key, _TO_SWITCH, body, len(body) + MAC)


def bound(key: bytes, told: Bound) -> bytes:
    body = _HEAD.pack(CONTROL, told.slot, BOUND, told.how, told.counter) + _BOUND.pack(told.generation, told.size)
    return body + _mac(key, _TO_NODE, body, len(body) + MAC)


def hint(kind: int, id: bytes) -> bytes:
    """A hint of kind REBIND or UNKNOWN that answers a packet with this id."""
    return bytes((CONTROL,)) + id + bytes((kind,))


# ---- decoding ----


def decode(data: Buffer) -> Control | None:
    """The control packet, or None for anything that is none of this version. Total; macs are `genuine`'s matter."""
    if len(data) < HINT_LENGTH or data[0] != CONTROL:
        return None
    packet = bytes(data)
    kind = packet[HEADER]
    if kind in (REBIND, UNKNOWN):
        return _hint(packet, kind)
    if len(packet) < _HEAD.size:
        return None
    _, slot, _, flags, counter = _HEAD.unpack_from(packet)
    if kind == BIND and len(packet) in SIZES and flags <= MOVED and _padded(packet, _BIND_LENGTH):
        return Bind(slot, counter, bool(flags), len(packet))
    if kind == CHALLENGE and len(packet) in SIZES and not flags and _padded(packet, _CHALLENGE_LENGTH):
        cookie = Cookie(*_COOKIE.unpack_from(packet, _HEAD.size))
        return Challenge(slot, counter, cookie) if cookie.size == len(packet) else None
    if kind == ANSWER and len(packet) == _ANSWER_BODY + MAC and flags <= MOVED:
        cookie = Cookie(*_COOKIE.unpack_from(packet, _HEAD.size))
        return Answer(slot, counter, bool(flags), cookie) if cookie.size in SIZES else None
    if kind == BOUND and len(packet) == _BOUND_BODY + MAC:
        generation, size = _BOUND.unpack_from(packet, _HEAD.size)
        return Bound(slot, counter, generation, flags, size) if size in SIZES else None
    return None


def genuine(packet: Buffer, key: bytes) -> bool:
    """Whether the mac of a Bind, Answer or Bound that `decode` took was made with this key."""
    kind = packet[HEADER]
    body = _BIND_BODY if kind == BIND else _ANSWER_BODY if kind == ANSWER else _BOUND_BODY
    direction = _TO_NODE if kind == BOUND else _TO_SWITCH
    expected = _mac(key, direction, bytes(packet[:body]), len(packet))
    return hmac.compare_digest(expected, bytes(packet[body : body + MAC]))


def _hint(packet: bytes, kind: int) -> Control | None:
    if len(packet) != HINT_LENGTH:
        return None
    return Rebind(packet[1:HEADER]) if kind == REBIND else Unknown(packet[1:HEADER])


def _padded(packet: bytes, length: int) -> bool:
    return packet[length:] == _ZEROS[length : len(packet)]


def _mac(key: bytes, direction: bytes, body: bytes, length: int) -> bytes:
    covered = direction + body + length.to_bytes(2, "big")
    return hashlib.blake2b(covered, key=key, digest_size=MAC, person=_PERSON).digest()
