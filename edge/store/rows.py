"""Rows to values and back: the few queries that every part of the repository shares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from warren.edge.store import policies, schema
from warren.edge.store.errors import NotFoundError
from warren.edge.store.records import Device, Route, Tombstone, Tunnel
from warren.edge.store.snapshot import Snapshot, build

STATE_ROW = schema.state.c.id == 1


async def version(connection: AsyncConnection) -> tuple[int, int]:
    """Epoch and revision."""
    row = (await connection.execute(select(schema.state).where(STATE_ROW))).one()
    return row.epoch, row.revision


async def read_all(connection: AsyncConnection) -> Snapshot:
    """The snapshot of everything; blocks the loop in proportion to the rows."""
    epoch, revision = await version(connection)
    return build(
        epoch,
        revision,
        [to_tunnel(row) for row in await connection.execute(select(schema.tunnels))],
        [to_route(row) for row in await connection.execute(select(schema.routes))],
        [to_device(row) for row in await connection.execute(select(schema.devices))],
        (await connection.execute(select(schema.edges.c.signed))).scalar_one_or_none() or b"",
        await policies.newest(connection),
    )


async def read_some(connection: AsyncConnection, ids: Iterable[str]) -> list[Tunnel | Route | Device]:
    """Those of the rows with these ids that are there."""
    wanted = list(ids)
    found: list[Tunnel | Route | Device] = []
    for table, make in ((schema.tunnels, to_tunnel), (schema.routes, to_route), (schema.devices, to_device)):
        found += [make(row) for row in await connection.execute(select(table).where(table.c.id.in_(wanted)))]
    return found


async def read_tombstones(connection: AsyncConnection, limit: int) -> list[Tombstone]:
    """The newest, in order."""
    table = schema.tombstones
    query = select(table).order_by(table.c.revision.desc(), table.c.id.desc()).limit(limit)
    found = [Tombstone(row.id, row.kind, row.revision, row.deleted) for row in await connection.execute(query)]
    return found[::-1]


async def find(connection: AsyncConnection, table: Table, which: str, what: str) -> Row[Any]:
    """By id first, then by name: `_refuse_taken` keeps a name from being another's id."""
    for column in (table.c.id, table.c.name) if "\0" not in which else ():  # which PostgreSQL refuses
        row = (await connection.execute(select(table).where(column == which))).one_or_none()
        if row is not None:
            return row
    names = [row.name for row in await connection.execute(select(table.c.name).order_by(table.c.name).limit(11))]
    known = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    raise NotFoundError(
        f"there is no {what} {which[:80]!r}: " + (f"there are {known}" if names else "there are none yet")
    )


async def exists(connection: AsyncConnection, table: Table, condition: ColumnElement[bool]) -> bool:
    return (await connection.execute(select(table.c.id).where(condition).limit(1))).first() is not None


async def insert_record(connection: AsyncConnection, table: Table, record: Any, **more: Any) -> None:
    row = {name: getattr(record, name) for name in record.__slots__} | more
    await connection.execute(insert(table).values(row))


def to_tunnel(row: Row[Any]) -> Tunnel:
    return Tunnel(
        row.id,
        row.name,
        row.authority,
        row.statement,
        row.signed,
        row.created,
        row.revision,
        row.former or b"",
        row.until,
    )


def to_route(row: Row[Any]) -> Route:
    return Route(
        row.id, row.kind, row.value, row.tunnel, row.vnet, row.comment, row.created, row.revision, tuple(row.servers)
    )  # fmt: skip


def to_device(row: Row[Any]) -> Device:
    return Device(
        row.id, row.name, row.thumbprint or "", row.host, row.vnet, row.user, tuple(row.groups), tuple(row.tags),
        row.created, row.expires, row.enrolled, row.seen, row.revision, row.home, tuple(row.vnets),
    )  # fmt: skip
