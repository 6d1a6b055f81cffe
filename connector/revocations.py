"""What the judge has taken back, and the flows that stand on it. Pure.

A revocation is an id (of a device, user, rule, route or tunnel) and the least revision that a grant which names it must
have. A flow stands in the index from before it is dialled until it ends, so a revocation finds every flow, also one
that is just opening (protocol.md, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity.grants import Grant, Revision

REVOKED_MAX = 20_000
"""Revocations kept, the newest: a grant opens flows for a minute, in which nobody takes back so many."""
LEASE = 600.0
"""Seconds for which flows go on although no edge confirms them."""


class Standing:
    """One flow's entry. `end`: ends it, opening or open; called once at most."""

    __slots__ = ("end", "ids", "revision")

    def __init__(self, grant: Grant, end: Callable[[], None]) -> None:
        self.ids = names_of(grant)
        self.revision = grant.revision
        self.end = end


class Revocations:
    """Of one connector process, for all its peer connections."""

    def __init__(self) -> None:
        self.epoch = 0
        """The highest seen. A restored store has a higher one than the store before it."""
        self.taken = False
        """The first list is here; nothing may be opened before."""
        self._least: dict[str, int] = {}
        self._index: dict[str, dict[Standing, None]] = {}

    def __len__(self) -> int:
        """Flows that stand."""
        return len({standing for there in self._index.values() for standing in there})

    # ---- flows ----

    def check(self, grant: Grant) -> None:
        """Raises DeniedError(STALE_GRANT): something of it was taken back, or nobody has said yet what was."""
        if not self.taken:
            raise DeniedError(Reason.STALE_GRANT, "no edge has told what was revoked yet")
        if grant.revision.epoch < self.epoch:
            raise DeniedError(Reason.STALE_GRANT, "granted before the store was restored")
        if grant.revision.epoch == self.epoch and self._is_stale(names_of(grant), grant.revision):
            raise DeniedError(Reason.STALE_GRANT, "the device, the route or the tunnel was changed")

    def enter(self, grant: Grant, end: Callable[[], None]) -> Standing:
        """A flow is about to be dialled. `leave` when it is over."""
        standing = Standing(grant, end)
        for name in standing.ids:
            self._index.setdefault(name, {})[standing] = None
        return standing

    def leave(self, standing: Standing) -> None:
        """The flow is over. Doing it twice is nothing."""
        for name in standing.ids:
            there = self._index.get(name)
            if there is not None:
                there.pop(standing, None)
                if not there:
                    del self._index[name]

    def ids(self) -> Iterator[str]:
        """Everything that flows stand on: the judge looks whether it still knows it."""
        return iter(self._index)

    # ---- what the judge says ----

    def revoke(self, epoch: int, entries: Iterable[tuple[str, int]]) -> int:
        """Ends the flows concerned; how many. An older epoch's word is nothing."""
        self.taken = True
        if epoch < self.epoch:
            return 0
        if epoch > self.epoch:
            self.epoch = epoch
            self._least.clear()
        concerned: dict[Standing, None] = {}
        for name, least in entries:
            self._remember(name, least)
            for standing in self._index.get(name, ()):
                if standing.revision < Revision(epoch, least):
                    concerned[standing] = None
        return self._end(concerned)

    def end_all(self) -> int:
        """No edge has confirmed anything for the lease; how many flows ended."""
        return self._end({standing: None for there in self._index.values() for standing in there})

    def _end(self, concerned: Iterable[Standing]) -> int:
        ended = list(concerned)
        for standing in ended:
            self.leave(standing)
            standing.end()
        return len(ended)

    def _remember(self, name: str, least: int) -> None:
        known = self._least.pop(name, 0)
        if len(self._least) >= REVOKED_MAX:
            del self._least[next(iter(self._least))]
        self._least[name] = max(known, least)

    def _is_stale(self, names: tuple[str, ...], revision: Revision) -> bool:
        return any(revision.counter < self._least.get(name, 0) for name in names)


def names_of(grant: Grant) -> tuple[str, ...]:
    """The ids that a grant stands on; a tunnel's, a route's and a device's are random, so kinds can't be mixed up."""
    said = (grant.device, grant.user and f"user:{grant.user}", f"rule:{grant.rule}", grant.route, grant.tunnel)
    return tuple(name for name in said if name)
