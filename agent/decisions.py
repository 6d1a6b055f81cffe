"""What the judge has decided lately: a grant serves further flows to the same destination while it is fresh."""

from __future__ import annotations

import time
from typing import Protocol

from warren.fabric.core.messages.session import Granted

GRANTS = 1024
"""Grants kept: 2 KiB each."""
FRESH = 30.0
"""Seconds that a grant is used again: half of its life, so that it is never refused for skew."""


class Judge(Protocol):
    """Who decides flows (fabric/aio/node.py)."""

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Granted:
        """Raises DeniedError."""


class Decisions:
    """Asks the judge, and remembers."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._grants: dict[tuple[str, str, str, int], tuple[float, Granted]] = {}

    async def grant(
        self, protocol: str, port: int, *, address: str = "", host: str = "", fresh: bool = False
    ) -> Granted:
        """One of `address` and `host`. `fresh`: what is remembered does not count. Raises DeniedError."""
        key = (protocol, address, host, port)
        known, now = self._grants.get(key), time.monotonic()
        if known is not None and now - known[0] < FRESH and not fresh:
            return known[1]
        granted = await self._judge.decide(protocol, port, address=address, host=host)
        if len(self._grants) >= GRANTS:
            self._grants.pop(next(iter(self._grants)))
        self._grants[key] = (now, granted)
        return granted

    def forget(self) -> None:
        """Routes or the session changed: ask anew."""
        self._grants.clear()
