"""Opens the store: finds the database, brings its schema up, reads it once.

SQLite and PostgreSQL. Everything that is SQLite's own is in this file and in `backup.py`; PostgreSQL's is in
`postgres.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from warren.edge.store import postgres
from warren.edge.store.errors import AwayError, cause_of
from warren.edge.store.repository import Repository, Shared
from warren.edge.store.schema import VERSION
from warren.fabric.core.errors import ConfigError

BUSY_SECONDS = 5
"""How long a change waits for another process (a backup) to let go of the database."""
CONNECTIONS = 4
"""Connections to the database, one thread each: one that writes, and some admin requests that read."""
EXAMPLE = "a path, sqlite+aiosqlite:///PATH, or postgresql+asyncpg://USER@HOST/DATABASE"


async def open_store(where: Path | str, *, create: bool = False, password_file: Path | None = None) -> Repository:
    """The store in the file `where` (or at a database URL), with the newest schema and its snapshot read.

    `create`: make a new one, and refuse one that is there; call `Repository.new_epoch` next. Close it with
    `Repository.close`. `password_file`: PostgreSQL's only. Raises ConfigError; AwayError where PostgreSQL can't be
    reached now.
    """
    repository = reach_store(where, create=create, password_file=password_file)
    try:
        await repository.refresh()
    except (SQLAlchemyError, OSError) as error:
        await repository.close()
        cause = cause_of(error)
        said = f"the store {place(where)} can't be opened: {cause}"
        if repository.shared is None or isinstance(error, PermissionError):
            raise ConfigError(said) from None
        raise AwayError(said, cause) from None
    except BaseException:
        await repository.close()
        raise
    return repository


def reach_store(where: Path | str, *, create: bool = False, password_file: Path | None = None) -> Repository:
    """The same, but nothing is read yet: the first look at it brings its schema up. Raises ConfigError."""
    url = _url(where)
    engine, shared = _engine(url, password_file, create=create)
    shown = place(url)

    async def bring_up() -> None:
        async with engine.execution_options(locked=True).begin() as connection:
            await connection.run_sync(_bring_up, shown, create)

    return Repository(engine, shared, bring_up)


def place(where: URL | Path | str) -> str:
    """Where the store is, for people: a path, or a URL that holds no secret. Raises ConfigError."""
    url = where if isinstance(where, URL) else _url(where)
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string()  # a password is shown as ***


def _url(where: Path | str) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite+aiosqlite", database=str(Path(where).absolute()))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise ConfigError(f"the store's URL can't be read: {EXAMPLE}") from None
    match url.get_backend_name():
        case "postgresql":
            return url.set(drivername="postgresql+asyncpg")
        case "sqlite" if url.database in (None, "", ":memory:"):
            raise ConfigError("a store needs a file: give its path")
        case "sqlite":
            return url.set(drivername="sqlite+aiosqlite")
    raise ConfigError(f"a store in {url.get_backend_name()} is not supported: {EXAMPLE}")


def _engine(url: URL, password_file: Path | None, *, create: bool) -> tuple[AsyncEngine, Shared | None]:
    if url.get_backend_name() == "sqlite":
        _prepare_file(Path(str(url.database)), create=create)
        return _sqlite(url), None
    connect = postgres.reach(url, password_file)
    engine = postgres.engine(connect)
    return engine, postgres.shared(engine, connect)


def _prepare_file(path: Path, *, create: bool) -> None:
    """Mode 0600 from the first byte; SQLite gives its -wal and -shm files the same."""
    if not create:
        if not path.is_file():
            raise ConfigError(f"there is no store at {path}: `warren edge init` makes one")
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        raise ConfigError(f"there is a store at {path} already: remove it first, or leave it as it is") from None
    except OSError as error:
        raise ConfigError(f"a store can't be made at {path}: {error.strerror}") from None


def _bring_up(connection: Connection, where: str, create: bool) -> None:
    if not create and _is_newest(connection):
        return
    from warren.edge.store import migrate  # Alembic: only where there is something to bring up

    empty = migrate.is_empty(connection)
    if not empty and migrate.current(connection) is None:
        raise ConfigError(f"{where} is a database of something else")
    if empty and not create:
        raise ConfigError(f"{where} is empty: `warren edge init` makes a store")
    if create and not empty:
        raise ConfigError(f"there is a store at {where} already: remove it first, or leave it as it is")
    migrate.upgrade(connection, where)


def _is_newest(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [VERSION]


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=CONNECTIONS, max_overflow=0, connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True
    )
    event.listen(engine.sync_engine, "connect", _set_up_connection)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _set_up_connection(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late for a consistent read
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    """A migration reads before it writes: it takes the lock at once, or two that start together would both go up."""
    locked = connection.get_execution_options().get("locked", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if locked else "BEGIN")
