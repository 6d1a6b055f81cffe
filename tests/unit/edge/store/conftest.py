"""A new store for each test, on every database that is supported (PostgreSQL joins the list later)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from warren.edge.store.database import open_store
from warren.edge.store.repository import Repository


@pytest.fixture(params=["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where the store is: a path or a URL."""
    assert request.param == "sqlite"
    return tmp_path / "store.db"


@pytest.fixture
async def store(place: Path | str) -> AsyncIterator[Repository]:
    repository = await open_store(place, create=True)
    await repository.new_epoch(1_000)
    yield repository
    await repository.close()
