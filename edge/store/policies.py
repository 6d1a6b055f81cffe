"""DNS policies as they were applied, newest first; the newest is in use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from warren.dnsfilter.policies import KEPT, Revision
from warren.edge.store import schema

NOTE_LIMIT = 200
"""Characters of a note: a line on a screen."""


class Step(Protocol):
    """One change of the store (edge/store/repository.py)."""

    policy: Revision | None


Begin = Callable[[], AbstractAsyncContextManager[tuple[AsyncConnection, Step]]]


class PolicyShelf:
    """The shelf of dnsfilter's `PolicyBook`, in the store. The newest is in each snapshot: every edge has it."""

    def __init__(self, engine: AsyncEngine, change: Begin) -> None:
        """`change`: one transaction, which every edge hears of."""
        self._engine = engine
        self._change = change

    async def revisions(self) -> list[Revision]:
        """At most `KEPT`."""
        table = schema.policies
        query = select(table).order_by(table.c.number.desc()).limit(KEPT)
        async with self._engine.connect() as connection:
            return [_revision(row) for row in await connection.execute(query)]

    async def keep(self, text: str, applied: int, note: str) -> Revision:
        """Under the next number; the oldest goes when there are too many."""
        table = schema.policies
        last = select(table.c.number).order_by(table.c.number.desc()).limit(1)
        async with self._change() as (connection, step):
            number = ((await connection.execute(last)).scalar() or 0) + 1
            revision = Revision(number, applied, text, note[:NOTE_LIMIT])
            row = {"number": number, "applied": applied, "text": text, "note": revision.note}
            await connection.execute(insert(table).values(row))
            await connection.execute(delete(table).where(table.c.number <= number - KEPT))
            step.policy = revision
        return revision


async def newest(connection: AsyncConnection) -> Revision | None:
    """The policy in use."""
    query = select(schema.policies).order_by(schema.policies.c.number.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _revision(row)


def _revision(row: Row[Any]) -> Revision:
    return Revision(row.number, row.applied, row.text, row.note)
