"""Which upstream is asked next, and whether what came back is an answer to what was asked. No sockets, no clock."""

from __future__ import annotations

from typing import Final

import msgspec

from warren.dnsfilter.core.config import Group, Upstream
from warren.fabric.core import dnswire as wire
from warren.fabric.core.dnsreply import Reply

TRY_S: Final = 1.5
"""One attempt over UDP, or one connection and answer over TCP."""
TOTAL_S: Final = 5.0
"""One question to a group, all attempts together: what a stub's own time-out is (RFC 1536; glibc's `timeout`)."""
ROUNDS: Final = 2
"""Times that each upstream is tried over UDP: one lost packet is not an outage."""
FAILURES_TO_REST: Final = 3
REST_S: Final = 10.0
"""An upstream that failed so often in a row goes to the end of the order for so long."""
WRONG_MAX: Final = 20
"""Replies with a wrong id, name or type on one socket; after that somebody guesses, and TCP is used instead."""


COOKIE: Final = 8
"""Bytes of our half of a cookie."""


class Asking(msgspec.Struct, frozen=True, gc=False):
    """A question of ours, as it goes out."""

    id: int
    raw: bytes
    """The name in the case that was drawn for it (0x20)."""
    type: int
    dnssec_ok: bool
    checking_disabled: bool
    wants_ad: bool = False
    """To be told whether it was validated, also without DO (RFC 6840, section 5.7)."""
    cookie: bytes = b""
    """Ours, and the server's behind it once it is known (RFC 7873)."""

    def message(self) -> bytes:
        flags = wire.RD | (wire.CD if self.checking_disabled else 0) | (wire.AD if self.wants_ad else 0)
        return wire.build_query(self.id, self.raw, self.type, dnssec_ok=self.dnssec_ok, flags=flags, cookie=self.cookie)

    def padded(self) -> bytes:
        """The same for a transport that hides contents but not lengths: RFC 8467, section 4.1."""
        return wire.padded(self.message(), 128)


def matches(asking: Asking, reply: Reply) -> bool:
    """Whether it answers that question: id, name without its case, type and class."""
    if (reply.id, reply.type, reply.cls) != (asking.id, asking.type, wire.IN) or reply.name != asking.raw.lower():
        return False
    return not reply.cookie or reply.cookie[:COOKIE] == asking.cookie[:COOKIE]


def without_cookie(asking: Asking, reply: Reply) -> bool:
    """A matching reply without the cookie that this server has given before: believed over TCP only."""
    return len(asking.cookie) > COOKIE and not reply.cookie


def usable(reply: Reply) -> bool:
    """Whether another upstream need not be asked: an answer, or word that there is none."""
    return reply.rcode in (wire.NOERROR, wire.NXDOMAIN)


def mixed_case(name: bytes, bits: int) -> bytes:
    """The wire name with each letter's case taken from a bit: 0x20 (draft-vixie-dnsext-dns0x20)."""
    out = bytearray(name)
    for at, byte in enumerate(name):
        if 0x61 <= byte <= 0x7A:
            if bits & 1:
                out[at] = byte - 0x20
            bits >>= 1
    return bytes(out)


class State(msgspec.Struct):
    """What is known of one upstream."""

    rtt: float = 0.0
    """Smoothed, in seconds; 0: never answered."""
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    keeps_case: bool = True
    """Repeats the question's name as it was asked."""
    cookie: bytes = b""
    """Ours for this upstream, and behind it what it gave us; empty: none was drawn yet, or it does not stand any."""
    takes_cookies: bool = True
    answered: int = 0
    failed: int = 0


class Health:
    """Which upstreams answer, and how fast."""

    def __init__(self) -> None:
        self._states: dict[Upstream, State] = {}

    def of(self, upstream: Upstream) -> State:
        return self._states.setdefault(upstream, State())

    def answered(self, upstream: Upstream, rtt: float) -> None:
        state = self.of(upstream)
        state.rtt = rtt if not state.rtt else state.rtt * 0.8 + rtt * 0.2
        state.failures, state.rests_until = 0, 0.0
        state.answered += 1

    def failed(self, upstream: Upstream, now: float) -> None:
        state = self.of(upstream)
        state.failed += 1
        state.failures += 1
        if state.failures >= FAILURES_TO_REST:
            state.rests_until = now + REST_S

    def states(self) -> list[tuple[Upstream, State]]:
        return list(self._states.items())

    def order(self, group: Group, now: float) -> list[Upstream]:
        """The order in which they are asked: those that rest last; racing groups by round trip, the untried first."""
        resting = [upstream for upstream in group.upstreams if self.of(upstream).rests_until > now]
        ready = [upstream for upstream in group.upstreams if self.of(upstream).rests_until <= now]
        if group.order == "racing":
            ready.sort(key=lambda upstream: self.of(upstream).rtt)
        return ready + resting
