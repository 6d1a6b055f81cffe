"""What a request over HTTPS asks, and how its answer is labelled (RFC 8484). No HTTP here: fields in, fields out."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from warren.fabric.core import dnswire as wire

PATH: Final = "/dns-query"
MEDIA_TYPE: Final = "application/dns-message"
_ENCODED_MAX: Final = (wire.QUERY_MAX + 2) // 3 * 4
_TTL = struct.Struct("!I")


class Refused(msgspec.Struct, frozen=True):
    """A request that is none of ours, as an HTTP status."""

    status: int
    text: str


def query_of(fields: Mapping[str, str], body: bytes) -> bytes | Refused:
    """The DNS query of a request. `fields`: its header and pseudo-header fields, names in lower case."""
    path, _, parameters = fields.get(":path", "").partition("?")
    if path != PATH:
        return Refused(404, f"there is {PATH} only")
    if fields.get(":method") == "POST":
        if fields.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
            return Refused(415, f"POST takes {MEDIA_TYPE}")
        return body if len(body) >= wire.HEADER else Refused(400, "no DNS message")
    if fields.get(":method") != "GET":
        return Refused(405, "GET or POST")
    for parameter in parameters.split("&"):
        key, _, value = parameter.partition("=")
        if key == "dns":
            return _decoded(value)
    return Refused(400, "the parameter dns is missing")


def _decoded(value: str) -> bytes | Refused:
    if len(value) > _ENCODED_MAX or not value.isascii():
        return Refused(414, "too long")
    try:
        message = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return Refused(400, "the parameter dns is no base64url")
    return message if len(message) >= wire.HEADER else Refused(400, "no DNS message")


def freshness(message: bytes) -> int:
    """Seconds that an HTTP cache may keep the answer: its smallest TTL (RFC 8484, section 5.1), 0 where it has none."""
    if len(message) < wire.HEADER or message[3] & 15 not in (wire.NOERROR, wire.NXDOMAIN):
        return 0
    questions, answers, authorities = struct.unpack_from("!HHH", message, 4)
    at, least = wire.HEADER, -1
    for _ in range(questions):
        at = wire.skip_name(message, at) + 4
    for _ in range(answers or authorities):
        at = wire.skip_name(message, at)
        ttl = _TTL.unpack_from(message, at + 4)[0]
        least = ttl if least < 0 else min(least, ttl)
        at += 10 + (message[at + 8] << 8 | message[at + 9])
    return max(least, 0)
