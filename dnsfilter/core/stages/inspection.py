"""What an answer leads to, before it goes to the client: from the cache or fresh from an upstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from warren.dnsfilter.core.verdict import Asked, Resolved, Said


class Inspector(Protocol):
    """Objects to an answer, or has nothing against it."""

    def inspect(self, asked: Asked, said: Said) -> Resolved | None: ...


class Inspection:
    """The inspectors, in their order."""

    def __init__(self, inspectors: Sequence[Inspector]) -> None:
        self._inspectors = tuple(inspectors)

    def inspect(self, asked: Asked, said: Said) -> Resolved | None:
        for inspector in self._inspectors:
            objection = inspector.inspect(asked, said)
            if objection is not None or asked.alias:
                return objection
        return None
