"""The schema: up from nothing equals the tables in code; newer ones are left alone; down and up again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from warren.edge.store import migrate
from warren.edge.store.rows import to_tunnel
from warren.edge.store.schema import VERSION, metadata
from warren.fabric.core.errors import ConfigError

pytestmark = pytest.mark.anyio
Sync = Callable[[Callable[[Connection], None]], Awaitable[None]]


@pytest.fixture
async def on_connection(place: Path | str) -> AsyncIterator[Sync]:
    """Runs a function with a connection, in one transaction, on each kind of database."""
    url = f"sqlite+aiosqlite:///{place}" if isinstance(place, Path) else place
    engine = create_async_engine(url)

    async def run(work: Callable[[Connection], None]) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(work)

    yield run
    await engine.dispose()


async def test_up_from_nothing_gives_the_tables_in_code(on_connection: Sync) -> None:
    def work(connection: Connection) -> None:
        assert migrate.is_empty(connection)
        assert migrate.current(connection) is None
        migrate.upgrade(connection, "here")
        assert migrate.current(connection) == migrate.head() == VERSION
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        migrate.upgrade(connection, "here")

    await on_connection(work)


async def test_down_and_up_again(on_connection: Sync) -> None:
    def work(connection: Connection) -> None:
        migrate.upgrade(connection, "here")
        migrate.downgrade(connection, "base")
        assert "tunnels" not in inspect(connection).get_table_names()
        migrate.upgrade(connection, "here")
        assert connection.execute(text("SELECT epoch, revision FROM state")).all() == [(0, 0)]

    await on_connection(work)


async def test_a_device_of_the_first_schema_is_at_home_where_it_is(on_connection: Sync) -> None:
    def work(connection: Connection) -> None:
        migrate.upgrade(connection, "here")
        migrate.downgrade(connection, "0001")
        connection.execute(
            text(
                'INSERT INTO devices (id, name, secret_hash, expires, host, vnet, "user", groups, tags, created, '
                "enrolled, seen, revision) VALUES ('d1', 'laptop', 'x', 1, '', 'lab', '', '[]', '[]', 1, 0, 0, 1)"
            )
        )
        migrate.upgrade(connection, "here")
        found = connection.execute(text("SELECT vnet, home, CAST(vnets AS TEXT) FROM devices")).all()
        assert found == [("lab", "lab", "[]")]

    await on_connection(work)


async def test_a_tunnel_of_an_older_schema_has_one_key(on_connection: Sync) -> None:
    def work(connection: Connection) -> None:
        migrate.upgrade(connection, "here")
        migrate.downgrade(connection, "0003")
        connection.execute(
            text(
                "INSERT INTO tunnels (id, name, authority, statement, signed, created, revision) "
                "VALUES ('t1', 'office', '1', '2', 1, 1, 1)"
            )
        )
        migrate.upgrade(connection, "here")
        assert connection.execute(text("SELECT signed, former, until FROM tunnels")).all() == [(1, None, 0)]
        (row,) = connection.execute(select(metadata.tables["tunnels"]))
        assert (to_tunnel(row).former, to_tunnel(row).until) == (b"", 0)

    await on_connection(work)


async def test_a_newer_schema_is_left_alone(on_connection: Sync) -> None:
    def work(connection: Connection) -> None:
        migrate.upgrade(connection, "here")
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(ConfigError, match=r"schema 9999 of a newer Warren, this one knows up to \d+"):
            migrate.upgrade(connection, "here")

    await on_connection(work)
