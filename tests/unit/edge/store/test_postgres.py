"""What is PostgreSQL's own: several edges on one store, a database that goes away, passwords that stay in files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from tests import postgresql
from warren.edge.store import follow
from warren.edge.store.copy import StoreCopy
from warren.edge.store.database import open_store, place, reach_store
from warren.edge.store.errors import AwayError
from warren.edge.store.follow import Follower
from warren.edge.store.records import Change
from warren.edge.store.repository import Repository
from warren.edge.store.snapshot import Snapshot
from warren.fabric.core.errors import ConfigError

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000
WITHIN = 30.0
LEASE = 600.0


@pytest.fixture
def url(postgres: postgresql.Server) -> str:
    return postgres.new_database()


@pytest.fixture
async def edges(url: str) -> AsyncIterator[tuple[Repository, Repository]]:
    first = await open_store(url, create=True)
    await first.new_epoch(1_000)
    second = await open_store(url)
    yield first, second
    await first.close()
    await second.close()


class Clock:
    """Seconds that a test turns forward."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


async def add_tunnel(store: Repository, name: str = "site") -> None:
    await store.add_tunnel(name * 5, name, b"authority", b"statement", 1, NOW)


async def test_a_change_at_one_edge_is_told_at_the_other_by_notify(
    edges: tuple[Repository, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_EVERY", 3600.0)
    first, second = edges
    told: asyncio.Queue[tuple[Snapshot, Change]] = asyncio.Queue()
    second.on_change = lambda snapshot, change: told.put_nowait((snapshot, change))
    following = asyncio.create_task(Follower(second, LEASE).run())
    try:
        for name in ("site", "other"):
            await add_tunnel(first, name)
            async with asyncio.timeout(WITHIN):
                snapshot, change = await told.get()
                while snapshot.revision < first.snapshot.revision:
                    snapshot, change = await told.get()
            assert change.everything
            assert snapshot.tunnels == first.snapshot.tunnels
        await first.delete_tunnel("site", NOW)
        async with asyncio.timeout(WITHIN):
            await told.get()
        assert [stone.kind for stone in second.tombstones()] == ["tunnel"]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_without_notify_the_revision_is_looked_at(edges: tuple[Repository, Repository]) -> None:
    first, second = edges
    assert second.shared is not None

    async def deaf(hint: object) -> None:
        await asyncio.Event().wait()

    object.__setattr__(second.shared, "listen", deaf)
    told = asyncio.Event()
    second.on_change = lambda snapshot, change: told.set()
    following = asyncio.create_task(Follower(second, LEASE).run())
    try:
        await add_tunnel(first)
        async with asyncio.timeout(WITHIN):
            await told.wait()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def recalled(url: str, copy: StoreCopy) -> Repository:
    """The store of an edge that starts while the database is away."""
    with pytest.raises(AwayError):
        await open_store(url)
    kept, store = copy.read(), reach_store(url)
    assert kept is not None
    store.begin_with(kept.snapshot, kept.tombstones)
    return store


async def test_a_database_that_goes_away_and_comes_back(
    edges: tuple[Repository, Repository], postgres: postgresql.Server, url: str, tmp_path: Path
) -> None:
    first, second = edges
    await add_tunnel(first)
    clock = Clock()
    copy, turns = StoreCopy(tmp_path / "store.copy", "own"), [0.0]
    follower = Follower(second, LEASE, clock, copy=copy)
    follower.on_turn = lambda: turns.append(follower.stale())
    await follower.look()
    postgres.stop()
    try:
        clock.at = 480.0
        await follower.look()
        assert (follower.fault != "", follower.age(), follower.fresh()) == (True, 480.0, True)
        assert [tunnel.name for tunnel in second.snapshot.tunnels.values()] == ["site"]
        with pytest.raises((SQLAlchemyError, OSError)):
            await second.add_device("laptop", "0" * 64, NOW + 60, NOW)
        clock.at = LEASE + 1
        await follower.look()
        assert not follower.fresh()
        started = await recalled(url, copy)
    finally:
        postgres.start()
    assert started.snapshot.tunnels == second.snapshot.tunnels
    late = Follower(started, LEASE, clock, age=50.0)
    assert late.stale() == 50.0
    await late.look()
    assert late.stale() == 0.0
    await started.close()
    await follower.look()
    assert turns == [0.0, 480.0, 0.0]
    assert (follower.fault, follower.age(), follower.fresh()) == ("", 0.0, True)
    await second.add_device("laptop", "0" * 64, NOW + 60, NOW)
    await first.refresh()
    assert [device.name for device in first.snapshot.devices_by_id.values()] == ["laptop"]


async def test_the_listener_comes_back_with_the_database(
    edges: tuple[Repository, Repository], postgres: postgresql.Server
) -> None:
    first, second = edges
    told: asyncio.Queue[int] = asyncio.Queue()
    second.on_change = lambda snapshot, change: told.put_nowait(snapshot.revision)
    following = asyncio.create_task(Follower(second, LEASE).run())
    try:
        postgres.stop()
        postgres.start()
        async with asyncio.timeout(WITHIN):
            while first.snapshot.tunnels == {}:
                try:
                    await add_tunnel(first)
                except (SQLAlchemyError, OSError):
                    await first.refresh()
            while await told.get() < first.snapshot.revision:
                pass
        assert not following.done()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_of_two_that_make_it_one_does(url: str) -> None:
    results = await asyncio.gather(*(open_store(url, create=True) for _ in range(2)), return_exceptions=True)
    (made,) = [result for result in results if not isinstance(result, BaseException)]
    await made.close()
    (other,) = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(other, ConfigError)
    assert "already" in str(other)


async def refused(url: str, said: str, password_file: Path | None = None) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        await open_store(url, password_file=password_file)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


async def test_what_is_refused_is_one_line_without_a_secret(url: str, tmp_path: Path) -> None:
    await refused(url, "is empty: `warren edge init`")
    await refused("postgresql+asyncpg://u:secret@host/db", "store_password_file")
    await refused("postgresql://u@host", "names no database")
    await refused("postgresql://u@host/db?password=x", "there is no 'password'")
    await refused("postgresql://u@host/db?sslmode=maybe", "sslmode is one of")
    await refused("postgresql://u@127.0.0.1:1/db", "can't be opened")
    await refused(f"postgresql://u@/db?host={tmp_path}", "can't be opened")
    await refused(url.replace("@/t", "@/nothing"), "does not exist")
    secret = tmp_path / "password"
    secret.write_text("secret")
    secret.chmod(0o644)
    await refused(url, "chmod 600", secret)
    assert "secret" not in place("postgresql://u:secret@host/db")


async def test_an_answer_that_does_not_come_is_no_answer(
    edges: tuple[Repository, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change waits for another's; one that hangs does not hold up the edge for ever."""
    first, second = edges
    holding, held = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with first._change():
            held.set()
            await holding.wait()

    task = asyncio.create_task(hold())
    await held.wait()
    try:
        with pytest.raises((SQLAlchemyError, OSError)):
            async with asyncio.timeout(WITHIN):
                await add_tunnel(second, "other")
        assert await second.refresh() is False
    finally:
        holding.set()
        await task
