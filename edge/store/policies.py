"""DNS policies as they were applied, newest first; the newest is in use."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from warren.dnsfilter.policies import KEPT, Revision
from warren.edge.store import schema

NOTE_LIMIT = 200
"""Characters of a note: a line on a screen."""


class PolicyShelf:
    """The shelf of dnsfilter's `PolicyBook`, in the store."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def revisions(self) -> list[Revision]:
        """At most `KEPT`."""
        table = schema.policies
        query = select(table).order_by(table.c.number.desc()).limit(KEPT)
        async with self._engine.connect() as connection:
            return [Revision(row.number, row.applied, row.text, row.note) for row in await connection.execute(query)]

    async def keep(self, text: str, applied: int, note: str) -> Revision:
        """Under the next number; the oldest goes when there are too many."""
        table = schema.policies
        newest = select(table.c.number).order_by(table.c.number.desc()).limit(1)
        async with self._engine.execution_options(locked=True).begin() as connection:
            number = ((await connection.execute(newest)).scalar() or 0) + 1
            revision = Revision(number, applied, text, note[:NOTE_LIMIT])
            row = {"number": number, "applied": applied, "text": text, "note": revision.note}
            await connection.execute(insert(table).values(row))
            await connection.execute(delete(table).where(table.c.number <= number - KEPT))
        return revision
