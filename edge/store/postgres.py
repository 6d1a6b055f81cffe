"""What only PostgreSQL has: how it is reached, one moment's view for a reader, a word to the other edges.

asyncpg speaks the protocol itself, so nothing has to be compiled or installed beside it, and it hears NOTIFY without a
thread. The password comes from a file of its own, or from where libpq has it (PGPASSFILE, ~/.pgpass), never from the
URL: settings are shown, a URL is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from warren.edge.store.repository import Shared
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.files import read_private

CHANNEL = "warren_store"
"""Of NOTIFY: it says that something changed; what, the revision tells."""
ANSWER_SECONDS = 5.0
"""How long a connection, and each statement, may take: then the database is away, and the edge goes on from memory."""
CONNECTIONS = 4
"""Connections of one edge: the look at the revision, one change, some admin requests; one more listens."""
LISTEN_AGAIN = 1.0
"""Seconds until the listener tries again; the revision is looked at meanwhile."""
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_LOCK = 0x57415252454E  # "WARREN": of two that bring the schema up, one waits for the other
_QUERY = ("host", "sslmode")

Connect = Callable[[], Awaitable[Any]]


def reach(url: URL, password_file: Path | None) -> Connect:
    """Makes connections of asyncpg's, which fail with OSError only: PermissionError where waiting does not help. Raises
    ConfigError: URL, password, no driver."""
    try:
        import asyncpg  # type: ignore[import-untyped]  # it has no types
    except ImportError:
        raise ConfigError("a store in PostgreSQL needs asyncpg: pip install 'warren[postgresql]'") from None
    _check(url)
    said = {name: value for name, value in (("ssl", url.query.get("sslmode")),) if value}
    password = _password(password_file) if password_file is not None else None
    make = partial(
        asyncpg.connect,
        host=url.query.get("host") or url.host,
        port=url.port,
        user=url.username,
        database=url.database,
        password=password,
        timeout=ANSWER_SECONDS,
        command_timeout=ANSWER_SECONDS,
        server_settings={"application_name": "warren edge"},
        **said,
    )

    async def connect() -> Any:
        try:
            return await make()
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise PermissionError(str(error)) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise ConnectionError(str(error)) from None
        except TimeoutError:
            raise ConnectionError(f"no answer within {ANSWER_SECONDS:.0f} s") from None

    return connect


def engine(connect: Connect) -> AsyncEngine:
    """Connections by `connect`."""
    made = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_pre_ping=True,  # a change does not fail for a connection that broke while nobody looked
        pool_timeout=ANSWER_SECONDS,
        hide_parameters=True,
    )
    event.listen(made.sync_engine, "begin", _begin)
    return made


def shared(made: AsyncEngine, connect: Connect) -> Shared:
    """What the repository needs to share this database with other edges."""
    reading = made.execution_options(isolation_level="REPEATABLE READ")
    return Shared(reading, f"SELECT pg_notify('{CHANNEL}', '')", partial(_listen, connect))


async def _listen(connect: Connect, hint: Callable[[], None]) -> None:
    """Calls `hint` at each change that another edge made, and after each new connection. Runs until it is cancelled."""
    while True:
        connection, ended = None, asyncio.Event()
        try:
            connection = await connect()
            connection.add_termination_listener(lambda _, ended=ended: ended.set())
            await connection.add_listener(CHANNEL, lambda *_: hint())
            hint()
            await ended.wait()
        except Exception:  # noqa: S110 (whatever it is: this is a hint, and the look at the revision says what is wrong)
            pass
        finally:
            if connection is not None:
                connection.terminate()
        await asyncio.sleep(LISTEN_AGAIN)


def _begin(connection: Connection) -> None:
    """Who brings the schema up does so alone."""
    if connection.get_execution_options().get("locked", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _check(url: URL) -> None:
    if url.password is not None:
        raise ConfigError(
            "the store's URL has a password in it, which settings may not hold: "
            "put it into a file of mode 0600 and name that as store_password_file"
        )
    unknown = [name for name in url.query if name not in _QUERY]
    if unknown:
        raise ConfigError(f"the store's URL: there is no {unknown[0]!r}; there are {', '.join(_QUERY)}")
    if url.query.get("sslmode", "prefer") not in SSL_MODES:
        raise ConfigError(f"the store's URL: sslmode is one of {', '.join(SSL_MODES)}")
    if not url.database:
        raise ConfigError("the store's URL names no database: postgresql+asyncpg://USER@HOST/DATABASE")


def _password(file: Path) -> str:
    password = read_private(file).decode(errors="replace").strip()
    if not password:
        raise ConfigError(f"{file} is empty: the database's password belongs there")
    return password
