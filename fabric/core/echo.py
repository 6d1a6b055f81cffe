"""ICMP echo inside a flow's datagrams: what is asked, and what came of it. Pure; both ends use it.

request  hops (8 bits) | sequence (16) | data
answer   kind (8) | code (8) | sequence (16) | who answered (32; zeros: the origin) | data, of a reply

Kinds and codes are those of ICMP (RFC 792) for ICMPv6 too. Who answered by IPv6 has 128 bits; the kind has 128 added
then.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_REQUEST = struct.Struct("!BH")
_ANSWER = struct.Struct("!BBH4s")
_ANSWER6 = struct.Struct("!BBH16s")
_SIX = 0x80

REPLY, UNREACHABLE, EXCEEDED = 0, 3, 11
"""Kinds of answers: the ICMP types (RFC 792)."""


class Request(NamedTuple):
    """One echo request. `hops`: its TTL as it came from the app, less the hop that the agent is."""

    hops: int
    sequence: int
    data: bytes


class Answer(NamedTuple):
    """What became of it. `source`: 4 or 16 bytes, who sent an error; zeros for a reply."""

    kind: int
    code: int
    sequence: int
    source: bytes
    data: bytes


def pack_request(request: Request) -> bytes:
    return _REQUEST.pack(request.hops, request.sequence) + request.data


def read_request(payload: bytes) -> Request | None:
    """None for anything that is none."""
    if len(payload) < _REQUEST.size:
        return None
    hops, sequence = _REQUEST.unpack_from(payload)
    return Request(max(1, hops), sequence, payload[_REQUEST.size :])


def pack_answer(answer: Answer) -> bytes:
    if len(answer.source) == 16:
        return _ANSWER6.pack(answer.kind | _SIX, answer.code, answer.sequence, answer.source) + answer.data
    return _ANSWER.pack(answer.kind, answer.code, answer.sequence, answer.source) + answer.data


def read_answer(payload: bytes) -> Answer | None:
    """None for anything that is none."""
    layout = _ANSWER6 if payload[:1] and payload[0] & _SIX else _ANSWER
    if len(payload) < layout.size:
        return None
    kind, code, sequence, source = layout.unpack_from(payload)
    kind &= ~_SIX
    if kind not in (REPLY, UNREACHABLE, EXCEEDED):
        return None
    return Answer(kind, code, sequence, source, payload[layout.size :])
