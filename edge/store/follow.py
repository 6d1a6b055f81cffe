"""Follows a store that other edges change too, and knows how old this edge's view of it is.

The revision is looked at every 250 ms; a NOTIFY only makes the next look come at once. While the database is away the
edge goes on from memory: it decides and answers as it last knew, until the view is older than the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from warren.edge.store.copy import WRITE_EVERY, WRITE_SHARE, StoreCopy
from warren.edge.store.errors import cause_of
from warren.edge.store.repository import Repository
from warren.fabric.aio.elapsed import elapsed
from warren.fabric.core.errors import ConfigError

LOOK_EVERY = 0.25
"""Seconds between two looks at the revision."""
AWAY: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)
"""What the repository raises when its database can't be reached, or can't do what it is asked."""
FAULTS: tuple[type[Exception], ...] = (*AWAY, ConfigError)
"""The same, and what its first look may find: another program's database."""

log = structlog.get_logger()


class Follower:
    """Of one edge process. `lease`: seconds after which the view is too old to grant by."""

    def __init__(
        self,
        repository: Repository,
        lease: float,
        clock: Callable[[], float] = elapsed,
        *,
        age: float = 0.0,
        copy: StoreCopy | None = None,
    ) -> None:
        """`repository`: as it was read `age` seconds ago. `copy`: where it is kept for another start."""
        self.fault = "it was not read yet" if age else ""
        """Why the last look failed; "" if it did not."""
        self.on_turn: Callable[[], None] = lambda: None
        """Called when the store has gone away, and when it is back."""
        self._repository = repository
        self._lease = lease
        self._clock = clock
        self._confirmed = clock() - age
        self._copy = copy
        self._kept: tuple[int, int] | None = None
        self._kept_at = 0.0
        self._keep_every = min(WRITE_EVERY, lease / WRITE_SHARE)
        self._hinted = asyncio.Event()

    def age(self) -> float:
        """Seconds since the store was last known to be as it is in memory."""
        return self._clock() - self._confirmed if self._repository.shared is not None else 0.0

    def stale(self) -> float:
        """The same while the store can't be read; 0 while it can."""
        return self.age() if self.fault else 0.0

    def fresh(self) -> bool:
        """Whether the view may be granted by."""
        return self.age() <= self._lease

    async def look(self) -> None:
        """One look at the revision; what is new is read."""
        asked = self._clock()
        try:
            await self._repository.refresh()
        except FAULTS as error:
            before, self.fault = self.fault, cause_of(error)
            if not before:
                log.warning("the store is away: this edge goes on from memory", cause=self.fault)
                self.on_turn()
            return
        before, away = self.fault, self.age()
        self.fault, self._confirmed = "", asked
        if before:
            log.info("the store is back", away=round(away, 1))
            self.on_turn()
        if self._repository.shared is not None and self._copy is not None:
            await self._keep(self._copy)

    async def _keep(self, copy: StoreCopy) -> None:
        """Where it is new, or the copy says that of a while ago."""
        snapshot = self._repository.snapshot
        version = snapshot.epoch, snapshot.revision
        if version == self._kept and self._clock() - self._kept_at < self._keep_every:
            return
        self._kept, self._kept_at = version, self._clock()
        try:
            await asyncio.to_thread(copy.write, snapshot, self._repository.tombstones(), self._confirmed)
        except ConfigError as error:
            log.warning("no copy of the store is kept", cause=str(error))

    async def run(self) -> None:
        """Until it is cancelled. A store that no other process changes is not looked at."""
        shared = self._repository.shared
        if shared is None:
            return
        listening = asyncio.create_task(shared.listen(self._hinted.set))
        try:
            while True:
                self._hinted.clear()
                await self.look()
                try:
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._hinted.wait()
                except TimeoutError:
                    pass
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
