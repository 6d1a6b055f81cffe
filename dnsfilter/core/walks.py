"""Which suffixes of a wire name are looked up, by its shape: where labels begin is the same for many names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from warren.fabric.core import dnswire as wire

SHAPES_MAX: Final = 4096
"""Shapes remembered, some 400 bytes each; when there are more all go."""
_LONG: Final = ord("*")
"""Lengths of labels from here on are no longer told from characters; below it no host name has any."""
_SHAPE: Final = bytes(min(byte, _LONG) for byte in range(256))

Walk = tuple[tuple[int, ...], tuple[int, ...]]
"""Offsets of the suffixes that may stand in the table, the shortest first, and of those that may stand apart; -1: it is
no name."""
NO_NAME: Final[Walk] = ((), (-1,))


class Walks:
    """For one table of names and one set of names apart."""

    def __init__(self, shortest: int, apart: Collection[bytes]) -> None:
        """`shortest`: bytes of the shortest name in the table."""
        self.apart = frozenset(apart)
        self._shortest = shortest
        self._lengths = frozenset(map(len, apart))
        self._by_shape: dict[bytes, Walk] = {}

    def of(self, names: Sequence[bytes]) -> list[Walk]:
        """One for each: what ends in a zero byte and has none before, or anything."""
        shapes = [name.translate(_SHAPE) for name in names]
        walks = list(map(self._by_shape.get, shapes))
        if None in walks:
            return [walk or self._new(*both) for walk, *both in zip(walks, names, shapes, strict=True)]
        return walks  # type: ignore[return-value]

    def _new(self, name: bytes, shape: bytes) -> Walk:
        """A long label stands in the shape as any character does, so that such a name's walk is its own."""
        walk, longest = self._made(name)
        if longest < _LONG:
            if len(self._by_shape) >= SHAPES_MAX:
                self._by_shape.clear()
            self._by_shape[shape] = walk
        return walk

    def _made(self, name: bytes) -> tuple[Walk, int]:
        """The walk, and the length of the longest label on it."""
        at, last, starts, longest = 0, len(name) - 1, [], 0
        while at < last and name[at] <= wire.LABEL_MAX:
            starts.append(at)
            longest = max(longest, name[at])
            at += 1 + name[at]
        if at != last or last >= wire.NAME_MAX:
            return NO_NAME, max(longest, name[at]) if at < last else longest
        looked_up = [start for start in starts if len(name) - start >= self._shortest]
        compared = [start for start in starts if len(name) - start in self._lengths]
        return (tuple(reversed(looked_up)), tuple(compared)), longest
