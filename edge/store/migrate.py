"""Brings a database to the schema that this program knows, or says why it can't."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from warren.edge.store.schema import metadata
from warren.fabric.core.errors import ConfigError

_SCRIPTS = Path(__file__).parent / "migrations"


def head() -> str:
    """The newest schema that this program knows."""
    return str(_scripts().get_current_head())


def current(connection: Connection) -> str | None:
    """The schema of this database; None if it never was a store."""
    return MigrationContext.configure(connection).get_current_revision()


def is_empty(connection: Connection) -> bool:
    """Whether the database has no table at all."""
    return not inspect(connection).get_table_names()


def upgrade(connection: Connection, where: str) -> None:
    """Up to `head`, inside the caller's transaction. Raises ConfigError if a newer program wrote the database."""
    found = current(connection)
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise ConfigError(
            f"the store {where} has schema {found} of a newer Warren, this one knows up to {head()}: "
            "install the newer one again, or restore a backup made before it"
        )
    if found != head():
        command.upgrade(_config(connection), "head")


def downgrade(connection: Connection, revision: str) -> None:
    """Down to `revision`, inside the caller's transaction; what only newer schemas hold is lost."""
    command.downgrade(_config(connection), revision)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["metadata"] = metadata
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
