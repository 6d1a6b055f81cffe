"""Answers of public upstreams that point at private addresses: a page of an attacker's would reach the inside."""

from __future__ import annotations

from typing import Final

from warren.dnsfilter.core.config import DEFAULT_GROUP
from warren.dnsfilter.core.stages.filtering import Slot
from warren.dnsfilter.core.verdict import Asked, Kind, Resolved, Said, Verdict
from warren.fabric.core import dnswire as wire
from warren.fabric.core.selectors import Networks

PRIVATE: Final = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("::/127", "::ffff:0:0/96", "fc00::/7", "fe80::/10"),
)
"""Networks that no public name has business with (RFC 6890); IPv4 in IPv6 altogether."""


class Rebinding:
    """No data instead of an answer from the group "default" that has a private address in it."""

    name = "rebinding"

    def __init__(self, slot: Slot) -> None:
        self._private = Networks(PRIVATE)
        self._slot = slot

    def inspect(self, asked: Asked, said: Said) -> Resolved | None:
        if asked.group != DEFAULT_GROUP or not said.addresses:
            return None
        for address in said.addresses:
            if self._private.contains(4 if len(address) == 4 else 6, int.from_bytes(address, "big")):
                if self._slot.current.policy.may_rebind(asked.question.name):
                    return None
                extended = wire.Extended(wire.EDE_BLOCKED, "the answer points at a private address (rebinding)")
                message = wire.answer(asked.question, extended=extended, limit=asked.limit)
                return Resolved(message, Verdict(Kind.BLOCKED, self.name, "rebinding"), asked.question)
        return None
