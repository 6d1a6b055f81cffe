"""How often is too often: token buckets, and the budget of hints for each source prefix and in all."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv6Address

from warren.fabric.core.engine import Address

HINTS_PER_SECOND, HINTS_BURST = 500.0, 500.0
PREFIX_PER_SECOND, PREFIX_BURST = 10.0, 20.0
PREFIXES = 4096
"""Prefixes remembered (about 200 bytes each); the one that was entered first goes when another comes."""


class Bucket:
    """`burst` tokens at first, `rate` more each second."""

    __slots__ = ("_at", "_burst", "_rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._at = rate, burst, now
        self.tokens = burst

    def take(self, now: float) -> bool:
        """Whether there was one. The clock is looked at only when they are used up."""
        if self.tokens < 1.0:
            self.tokens = min(self._burst, self.tokens + (now - self._at) * self._rate)
            self._at = now
            if self.tokens < 1.0:
                return False
        self.tokens -= 1.0
        return True


class HintBudget:
    """Nobody gets more hints than this, and all together no more than that: forged sources cost us little."""

    def __init__(self, now: float) -> None:
        self._all = Bucket(HINTS_PER_SECOND, HINTS_BURST, now)
        self._prefixes: dict[bytes | str, Bucket] = {}

    def take(self, address: Address, now: float) -> bool:
        if not self._all.take(now):
            return False
        prefix = source_prefix(address[0])
        bucket = self._prefixes.get(prefix)
        if bucket is None:
            if len(self._prefixes) >= PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            bucket = self._prefixes[prefix] = Bucket(PREFIX_PER_SECOND, PREFIX_BURST, now)
        return bucket.take(now)

    def __len__(self) -> int:
        return len(self._prefixes)


def source_prefix(host: str) -> bytes | str:
    """/24 of IPv4 (mapped, too), /56 of IPv6."""
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    if ":" not in host:
        return host.rpartition(".")[0]
    try:
        return IPv6Address(host.partition("%")[0]).packed[:7]
    except AddressValueError:
        return host
