"""A backup is one moment of a store in use; a restore is whole, or has changed nothing, and begins a new epoch."""

# ruff: noqa: ASYNC240 -- a test may wait for its disk
from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from warren.edge.store.backup import backup, epoch_of, restore
from warren.edge.store.database import open_store
from warren.edge.store.repository import Repository
from warren.fabric.core.errors import ConfigError

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """SQLite only: PostgreSQL has pg_dump."""
    return tmp_path / "store.db"


@pytest.fixture
def path(place: Path) -> Path:
    return place


async def fill(store: Repository, routes: int) -> None:
    await store.add_tunnel("a" * 20, "site", b"authority", b"statement", 1, NOW)
    for index in range(routes):
        await store.add_route("ip", f"10.{index}.0.0/16", "site", NOW)


async def test_a_backup_of_a_store_in_use_is_one_moment(store: Repository, path: Path, tmp_path: Path) -> None:
    await store.add_tunnel("b" * 20, "other", b"authority", b"statement", 1, NOW)
    filling = asyncio.create_task(fill(store, 40))
    copies: list[Path] = []
    while not filling.done():
        copies.append(tmp_path / f"copy{len(copies)}")
        await asyncio.to_thread(backup, path, copies[-1])
    await filling
    assert copies
    for copy in copies:
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        with closing(sqlite3.connect(copy)) as rows:
            (revision,) = rows.execute("SELECT revision FROM state").fetchone()
            newest = "SELECT max(revision) FROM (SELECT revision FROM tunnels UNION SELECT revision FROM routes)"
            assert rows.execute(newest).fetchone() == (revision,)
        assert {file.name for file in tmp_path.iterdir() if file.name.startswith(copy.name + "-")} == set()


async def test_a_restore_is_the_copy_in_a_new_epoch(store: Repository, path: Path, tmp_path: Path) -> None:
    await fill(store, 2)
    copy = tmp_path / "copy"
    backup(path, copy)
    before = store.snapshot
    await store.new_epoch(700_000)
    await store.delete_tunnel("site", NOW, force=True)
    await store.close()

    assert await restore(copy, path, 5_000) == 700_001

    again = await open_store(path)
    assert again.snapshot.epoch == 700_001
    assert (again.snapshot.tunnels, again.snapshot.routes) == (before.tunnels, before.routes)
    await again.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} <= {"copy", "store.db", "store.db-wal", "store.db-shm"}


async def test_a_restore_onto_a_new_host(store: Repository, path: Path, tmp_path: Path) -> None:
    backup(path, tmp_path / "copy")
    assert await restore(tmp_path / "copy", tmp_path / "new.db", 2_000_000) == 2_000_000
    assert epoch_of(tmp_path / "new.db") == 2_000_000


async def test_what_cannot_be_restored_leaves_the_store_alone(store: Repository, path: Path, tmp_path: Path) -> None:
    await fill(store, 30)
    copy, text, newer, torn = (tmp_path / name for name in ("copy", "text", "newer", "torn"))
    backup(path, copy)
    backup(path, newer)
    text.write_text("no backup\n" * 1000)
    with closing(sqlite3.connect(newer)) as rows:
        rows.execute("UPDATE alembic_version SET version_num = '9999'")
        rows.commit()
    data = bytearray(copy.read_bytes())
    data[4096 : 4096 * 6] = b"\xa5" * 4096 * 5
    torn.write_bytes(data)
    await store.close()
    content = path.read_bytes()
    for wrong, said in (
        (text, "no backup of a store"),
        (tmp_path / "none", "there is no backup"),
        (newer, "newer Warren"),
        (torn, "damaged|no backup|can't be"),
    ):
        with pytest.raises(ConfigError, match=said):
            await restore(wrong, path, 5_000)
    assert path.read_bytes() == content
    assert not list(tmp_path.glob("store.db.new*"))


async def test_a_backup_writes_over_nothing(store: Repository, path: Path, tmp_path: Path) -> None:
    backup(path, tmp_path / "copy")
    with pytest.raises(ConfigError, match="name a new file"):
        backup(path, tmp_path / "copy")
    with pytest.raises(ConfigError, match="there is no store"):
        backup(tmp_path / "nothing", tmp_path / "copy2")
    assert not (tmp_path / "copy2").exists()
