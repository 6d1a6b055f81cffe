"""DNS cookies as RFC 9018 lays them out: proof that who asks can hear the answer, kept by nobody.

client cookie (8) | version (1) = 1 | reserved (3) | time (4) | SipHash-2-4 of all that and the client's address (8)
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final

CLIENT: Final = 8
"""Bytes of the client's half; what stands behind is the server's."""
SECRET: Final = 16
LIFE_S: Final = 3600
AHEAD_S: Final = 300
"""RFC 9018, section 4.3: how old a cookie may be, and how far in the future."""
KEPT_MAX: Final = 4096
"""Cookies remembered, 250 bytes each: SipHash in Python costs 15 µs."""
KEPT_S: Final = 300
_VERSION: Final = b"\x01\x00\x00\x00"
_MASK: Final = (1 << 64) - 1


class Jar:
    """Makes and checks the server's half. `secret`: 16 random bytes; several servers may share them."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET:
            raise ValueError(f"the secret has {SECRET} bytes")
        self._secret = secret
        self._kept: dict[tuple[bytes, str], tuple[float, bytes]] = {}

    def bake(self, client: bytes, address: str, wall: float) -> bytes:
        """Both halves for an answer. `client`: its 8 bytes; `wall`: seconds since 1970."""
        key = (client[:CLIENT], address)
        kept = self._kept.get(key)
        if kept is None or not 0 <= wall - kept[0] < KEPT_S:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            kept = self._kept[key] = (wall, self._signed(key[0], address, int(wall)))
        return kept[1]

    def valid(self, cookie: bytes, address: str, wall: float) -> bool:
        """Whether we gave it to that address, not too long ago."""
        if len(cookie) != 24 or cookie[8:12] != _VERSION:
            return False
        at = int.from_bytes(cookie[12:16], "big")
        age = (int(wall) - at + (1 << 31)) % (1 << 32) - (1 << 31)  # serial arithmetic: RFC 1982
        if not -AHEAD_S <= age <= LIFE_S:
            return False
        return hmac.compare_digest(cookie, self._signed(cookie[:CLIENT], address, at))

    def _signed(self, client: bytes, address: str, at: int) -> bytes:
        head = client + _VERSION + (at & 0xFFFFFFFF).to_bytes(4, "big")
        packed = ipaddress.ip_address(address.partition("%")[0]).packed
        return head + siphash24(self._secret, head + packed)


def siphash24(key: bytes, data: bytes) -> bytes:
    """SipHash-2-4 (Aumasson, Bernstein 2012): 8 bytes. Neither `hashlib` nor `cryptography` has it."""
    first, second = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    state = (
        first ^ 0x736F6D6570736575,
        second ^ 0x646F72616E646F6D,
        first ^ 0x6C7967656E657261,
        second ^ 0x7465646279746573,
    )
    padded = data + bytes(-(len(data) + 1) % 8) + bytes((len(data) & 0xFF,))
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        state = _rounds((state[0], state[1], state[2], state[3] ^ word), 2)
        state = (state[0] ^ word, *state[1:])
    state = _rounds((state[0], state[1], state[2] ^ 0xFF, state[3]), 4)
    return (state[0] ^ state[1] ^ state[2] ^ state[3]).to_bytes(8, "little")


def _rounds(state: tuple[int, int, int, int], count: int) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for _ in range(count):
        a = (a + b) & _MASK
        b = _left(b, 13) ^ a
        a = _left(a, 32)
        c = (c + d) & _MASK
        d = _left(d, 16) ^ c
        a = (a + d) & _MASK
        d = _left(d, 21) ^ a
        c = (c + b) & _MASK
        b = _left(b, 17) ^ c
        c = _left(c, 32)
    return a, b, c, d


def _left(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & _MASK
