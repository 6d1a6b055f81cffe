"""Which address does a slot's traffic come from and go to: the switch's half of the binding (protocol.md, section 2).

    Bind → (mac, counter) → Challenge, nothing kept → Answer → (mac, cookie, age) → the slot has an address → Bound

Pure: packets and `now` in, replies and changes out.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from typing import NamedTuple

from warren.edge.switch.model import Slot
from warren.fabric.core import frames
from warren.fabric.core.engine import Address, Buffer
from warren.fabric.core.frames import MAC, Answer, Bind, Bound, Cookie

COOKIE_AGE = 10_000
"""Milliseconds for which a cookie is good."""
_GENERATIONS = 2**32
_PERSON = b"warren-cookie/1"


class Change(NamedTuple):
    """What an Answer changed. `moved`: the node says that its network changed."""

    slot: Slot
    address: bool
    size: bool
    moved: bool


class Bindings:
    """Slots by id, and the cookies of this boot."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 random bytes of this boot."""
        self.slots: dict[bytes, Slot] = {}
        self.dropped: Counter[str] = Counter()
        self._secret = secret

    def handle(self, data: Buffer, address: Address, now: float) -> tuple[bytes | None, Change | None]:
        """A control packet from anybody: a reply to where it came from, never longer than it, and what changed.

        A Bind of an unknown slot is answered by `Unknown`: the caller decides whether the budget allows it."""
        message = frames.decode(data)
        if not isinstance(message, Bind | Answer):
            return self._drop("malformed")
        slot = self.slots.get(message.slot)
        if slot is None:
            unknown = isinstance(message, Bind)
            return (frames.hint(frames.UNKNOWN, message.slot), None) if unknown else self._drop("unknown_slot")
        if not frames.genuine(data, slot.key):
            return self._drop("bad_mac")
        if message.counter < slot.counter:
            return self._drop("old_counter")
        if isinstance(message, Bind):
            cookie = self._cookie(slot.id, address, message.counter, int(now * 1000), message.size)
            return frames.challenge(slot.id, message.counter, cookie), None
        return self._answered(slot, message, address, now)

    def _answered(
        self, slot: Slot, message: Answer, address: Address, now: float
    ) -> tuple[bytes | None, Change | None]:
        time, size, _ = message.cookie
        expected = self._cookie(slot.id, address, message.counter, time, size)
        if not hmac.compare_digest(expected.mac, message.cookie.mac):
            return self._drop("bad_cookie")
        if not 0 <= int(now * 1000) - time <= COOKIE_AGE:
            return self._drop("old_cookie")
        moved = address != slot.address
        if message.counter == slot.counter and (moved or size < slot.size):
            return self._drop("old_counter")
        change = Change(slot, moved, size != slot.size, message.moved)
        if moved:
            self._move(slot, address)
        slot.counter, slot.size, slot.active_at, slot.away = message.counter, size, now, False
        told = Bound(slot.id, slot.counter, slot.generation, slot.how, slot.size)
        return frames.bound(slot.key, told), change if moved or change.size else None

    @staticmethod
    def _move(slot: Slot, address: Address) -> None:
        other_host = slot.address is not None and slot.address[0] != address[0]
        slot.how = (slot.how << 1 | other_host) & 0xFF
        slot.generation = (slot.generation + 1) % _GENERATIONS
        slot.address = address

    def _cookie(self, slot: bytes, address: Address, counter: int, time: int, size: int) -> Cookie:
        host, port = address[0].encode(), address[1]
        numbers = b"".join(n.to_bytes(8, "big") for n in (port, counter, time, size))
        mac = hashlib.blake2b(slot + numbers + host, key=self._secret, digest_size=MAC, person=_PERSON)
        return Cookie(time, size, mac.digest())

    def _drop(self, why: str) -> tuple[None, None]:
        self.dropped[why] += 1
        return None, None
