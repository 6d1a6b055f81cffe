"""Follows a store that other edges change too, and knows how old this edge's view of it is.

The revision is looked at every 250 ms; a NOTIFY only makes the next look come at once. While the database is away the
edge goes on from memory: it decides and answers as it last knew, until the view is older than the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from warren.edge.clock import elapsed
from warren.edge.store.errors import cause_of
from warren.edge.store.repository import Repository

LOOK_EVERY = 0.25
"""Seconds between two looks at the revision."""
AWAY: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)
"""What the repository raises when its database can't be reached, or can't do what it is asked."""

log = structlog.get_logger()


class Follower:
    """Of one edge process. `lease`: seconds after which the view is too old to grant by."""

    def __init__(self, repository: Repository, lease: float, clock: Callable[[], float] = elapsed) -> None:
        """`repository`: as it was just read."""
        self.fault = ""
        """Why the last look failed; "" if it did not."""
        self._repository = repository
        self._lease = lease
        self._clock = clock
        self._confirmed = clock()
        self._hinted = asyncio.Event()

    def age(self) -> float:
        """Seconds since the store was last known to be as it is in memory."""
        return self._clock() - self._confirmed if self._repository.shared is not None else 0.0

    def fresh(self) -> bool:
        """Whether the view may be granted by."""
        return self.age() <= self._lease

    async def look(self) -> None:
        """One look at the revision; what is new is read."""
        asked = self._clock()
        try:
            await self._repository.refresh()
        except AWAY as error:
            if not self.fault:
                log.warning("the store is away: this edge goes on from memory", cause=cause_of(error))
            self.fault = cause_of(error)
            return
        if self.fault:
            log.info("the store is back", away=round(self.age(), 1))
        self.fault, self._confirmed = "", asked

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
