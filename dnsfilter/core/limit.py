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
        return self.takes(client, 1, now) == 1

    def takes(self, client: str, wanted: int, now: float) -> int:
        """Take as many tokens as there are, at most that many."""
        bucket = self._buckets.get(client)
        if bucket is None:
            if len(self._buckets) >= CLIENTS_MAX:
                self._forget(now)
            bucket = self._buckets[client] = [float(self._burst), now]
        tokens = min(bucket[0] + (now - bucket[1]) * self._rate, self._burst)
        given = wanted if wanted <= tokens else int(tokens)
        bucket[0], bucket[1] = tokens - given, now
        self.refused += wanted - given
        return given

    def _forget(self, now: float) -> None:
        fullest = sorted(self._buckets, key=lambda client: -self._tokens(client, now))
        for client in fullest[: CLIENTS_MAX // 2]:
            del self._buckets[client]

    def _tokens(self, client: str, now: float) -> float:
        tokens, at = self._buckets[client]
        return tokens + (now - at) * self._rate
