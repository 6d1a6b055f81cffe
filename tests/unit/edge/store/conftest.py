"""A new store for each test, on every database that is supported."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import postgresql
from warren.edge.store.database import open_store
from warren.edge.store.repository import Repository


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.Server]:
    """A server for all tests here; it runs."""
    with postgresql.server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where the store is: a path or a URL."""
    if request.param == "sqlite":
        return tmp_path / "store.db"
    server: postgresql.Server = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
async def store(place: Path | str) -> AsyncIterator[Repository]:
    repository = await open_store(place, create=True)
    await repository.new_epoch(1_000)
    yield repository
    await repository.close()
