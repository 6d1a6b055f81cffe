"""Datagrams that the library has built and that wait for `transmit`: cut into GSO batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warren.fabric.core.engine import Batch, Buffer

LARGEST_BATCH = 65_000
"""Bytes of one GSO send; the kernel takes 65,507."""


class Outbox:
    """What was built at once, with addresses; and the last words, which may have to be said again."""

    def __init__(self) -> None:
        self._ready: list[tuple[bytes, Any]] = []
        self._at = 0
        self._farewell: Sequence[tuple[bytes, Any]] = ()
        self._late = 0

    def __bool__(self) -> bool:
        return self._at < len(self._ready)

    def fill(self, built: Sequence[tuple[bytes, Any]], *, farewell: bool) -> None:
        """What the library built, once everything before it is gone. `farewell`: it is CONNECTION_CLOSE."""
        self._ready[:] = built
        self._at = 0
        if farewell:
            self._farewell = built

    def answer_late(self) -> None:
        """In the closing period packets are answered by CONNECTION_CLOSE again, ever more rarely (RFC 9000, 10.2.1)."""
        self._late += 1
        if self._farewell and self._late & (self._late - 1) == 0:
            self._ready.extend(self._farewell)

    def batch(self, header: bytes, segments: int) -> tuple[Any, Batch]:
        """A run of equal datagrams to one address, with a shorter last one; there has to be something."""
        ready, at = self._ready, self._at
        first, address = ready[at]
        size = len(first)
        stop = min(len(ready), at + max(1, min(segments, LARGEST_BATCH // (size + len(header)))))
        parts: list[Buffer] = [header, first] if header else [first]
        end = at + 1
        while end < stop:
            datagram, to = ready[end]
            if len(datagram) > size or (to is not address and to != address):
                break
            if header:
                parts.append(header)
            parts.append(datagram)
            end += 1
            if len(datagram) < size:
                break
        self._at = end
        return address, Batch(parts, size + len(header), end - at)
