"""Of which names others are below, while a table of names is built: by hash, and it may say so of a few more."""

from __future__ import annotations

from typing import Final

BYTES: Final = 2 << 20
"""A bit for each hash: of a million names with a parent each, one other in 16 is taken for a parent."""
_MASK: Final = BYTES - 1


class Parents:
    """A Bloom filter with one hash, Python's own."""

    def __init__(self) -> None:
        self._bits = bytearray(BYTES)

    def add_those_of(self, name: bytes) -> None:
        """All that the wire name is below of."""
        bits, at = self._bits, 1 + name[0] if name[0] else 1
        while at < len(name):
            mark = hash(name[at:]) or 1
            bits[mark >> 3 & _MASK] |= 1 << (mark & 7)
            at += 1 + name[at]

    def has(self, mark: int) -> bool:
        """Whether a name of that hash may be one."""
        return bool(self._bits[mark >> 3 & _MASK] >> (mark & 7) & 1)
