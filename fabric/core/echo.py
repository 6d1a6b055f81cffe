"""ICMP echo inside a flow's datagrams: what is asked, and what came of it. Pure; both ends use it.

request  hops (8 bits) | sequence (16) | data
answer   kind (8) | code (8) | sequence (16) | who answered (32, IPv4; zero: the origin) | data, of a reply
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_REQUEST = struct.Struct("!BH")
_ANSWER = struct.Struct("!BBH4s")

REPLY, UNREACHABLE, EXCEEDED = 0, 3, 11
"""Kinds of answers: the ICMP types (RFC 792)."""


class Request(NamedTuple):
    """One echo request. `hops`: its TTL as it came from the app, less the hop that the agent is."""

    hops: int
    sequence: int
    data: bytes


class Answer(NamedTuple):
    """What became of it. `source`: 4 bytes, who sent an error; zeros for a reply."""

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
    return _ANSWER.pack(answer.kind, answer.code, answer.sequence, answer.source) + answer.data


def read_answer(payload: bytes) -> Answer | None:
    """None for anything that is none."""
    if len(payload) < _ANSWER.size:
        return None
    kind, code, sequence, source = _ANSWER.unpack_from(payload)
    if kind not in (REPLY, UNREACHABLE, EXCEEDED):
        return None
    return Answer(kind, code, sequence, source, payload[_ANSWER.size :])
