"""Opening a store: what is there, what is not, what is something else."""

# ruff: noqa: ASYNC240 -- a test may wait for its disk
from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from warren.edge.store.database import open_store
from warren.fabric.core.errors import ConfigError

pytestmark = pytest.mark.anyio


async def refused(where: Path | str, said: str, *, create: bool = False) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        await open_store(where, create=create)
    assert "\n" not in str(error.value)


async def test_a_new_store_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await refused(path, "`warren edge init` makes one")
    assert not path.exists()
    store = await open_store(path, create=True)
    await store.new_epoch(1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    await store.close()
    assert set(modes.values()) == {0o600}
    await refused(path, "is a store at .* already", create=True)
    again = await open_store(f"sqlite:///{path}")
    assert again.snapshot.epoch == 1
    await again.close()


async def test_of_two_that_make_it_one_does(tmp_path: Path) -> None:
    making = [open_store(tmp_path / "store.db", create=True) for _ in range(2)]
    results = await asyncio.gather(*making, return_exceptions=True)
    (made,) = [result for result in results if not isinstance(result, BaseException)]
    await made.close()
    (other,) = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(other, ConfigError)
    assert "already" in str(other)


async def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello, this is not a database at all\n" * 100)
    await refused(tmp_path / "text", "not a database")
    await refused(tmp_path / "text", "already", create=True)
    (tmp_path / "empty").touch()
    await refused(tmp_path / "empty", "is empty")
    with closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE cats (name TEXT)")
    await refused(tmp_path / "other", "something else")
    await refused(tmp_path, "no store")
    await refused(tmp_path, "already", create=True)
    await refused(tmp_path / "no" / "where", "No such file", create=True)
    await refused("mysql://host/db", "mysql is not supported|can't be read")
    await refused("sqlite://", "needs a file")
    await refused("nonsense://", "not supported|can't be read")
    await refused("://", "can't be read")
