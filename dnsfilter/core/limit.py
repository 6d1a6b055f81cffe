"""How many queries a client may ask: one token bucket each."""

from __future__ import annotations

from typing import Final

CLIENTS_MAX: Final = 10_000
"""Buckets kept: 200 bytes each. When there are more the fullest half goes, which loses next to nothing."""


class Limiter:
    """Buckets of `burst` tokens, filled at `per_second`."""

    def __init__(self, per_second: int, burst: int) -> None:
        self._rate = per_second
        self._burst = burst
        self._buckets: dict[str, list[float]] = {}
        """Client → [tokens, when]."""
        self.refused = 0

    def allows(self, client: str, now: float) -> bool:
        """Take one token. `now`: monotonic seconds."""
        bucket = self._buckets.get(client)
        if bucket is None:
            if len(self._buckets) >= CLIENTS_MAX:
                self._forget(now)
            self._buckets[client] = [self._burst - 1.0, now]
            return True
        tokens, at = bucket
        if now != at:  # many come together
            tokens += (now - at) * self._rate
            bucket[1] = now
            if tokens > self._burst:
                tokens = self._burst
        if tokens < 1.0:
            bucket[0] = tokens
            self.refused += 1
            return False
        bucket[0] = tokens - 1.0
        return True

    def _forget(self, now: float) -> None:
        fullest = sorted(self._buckets, key=lambda client: -self._tokens(client, now))
        for client in fullest[: CLIENTS_MAX // 2]:
            del self._buckets[client]

    def _tokens(self, client: str, now: float) -> float:
        tokens, at = self._buckets[client]
        return tokens + (now - at) * self._rate
