"""The repository on a real database: every change, its revision, its snapshot, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from warren.edge.store import repository as module
from warren.edge.store.database import open_store
from warren.edge.store.errors import ExistsError, InUseError, InvalidError, LimitError, NotFoundError, StoreError
from warren.edge.store.records import Change, Tunnel
from warren.edge.store.repository import Repository
from warren.edge.store.snapshot import Snapshot
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000
SECRET = b"s" * 32
THUMB = "ab" * 32


def hashed(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


async def add_tunnel(store: Repository, name: str = "site", id_: str = "") -> Tunnel:
    return await store.add_tunnel(id_ or hashed(name.encode())[:20], name, b"authority", b"statement", 1, NOW)


class Watcher:
    """Collects what `on_change` tells."""

    def __init__(self, store: Repository) -> None:
        self.seen: list[tuple[Snapshot, Change]] = []
        store.on_change = lambda snapshot, change: self.seen.append((snapshot, change))

    def take(self) -> tuple[Snapshot, Change]:
        """The one change since the last call."""
        (only,) = self.seen
        self.seen.clear()
        return only


async def test_every_change_raises_the_revision_and_swaps_the_snapshot(store: Repository) -> None:
    watcher = Watcher(store)
    before = store.snapshot

    tunnel = await add_tunnel(store)
    snapshot, change = watcher.take()
    assert snapshot is store.snapshot
    assert before.tunnels == {}
    assert snapshot.tunnel(tunnel.id) == tunnel == await store.tunnel("site") == await store.tunnel(tunnel.id)
    assert (change, tunnel.revision) == (Change(frozenset({tunnel.id})), snapshot.revision)
    assert snapshot.revision == before.revision + 1

    route = await store.add_route("ip", "10.10.0.0/16", "site", NOW, comment="the office")
    snapshot, change = watcher.take()
    assert change.changed == {route.id}
    assert snapshot.network("default").cidrs == ("10.10.0.0/16",)
    name = await store.add_route("host", "Payroll.internal", tunnel.id, NOW)
    snapshot, _ = watcher.take()
    assert snapshot.host_route("default", "payroll.internal") == name
    assert snapshot.network("default").zones == ("payroll.internal",)
    assert snapshot.host_route("other", "payroll.internal") is None

    device = await store.add_device("laptop", hashed(SECRET), NOW + 3600, NOW)
    snapshot, change = watcher.take()
    assert (snapshot.devices, snapshot.devices_by_id) == ({}, {device.id: device})
    enrolled = await store.enrol(SECRET, THUMB, "lap\x1b[31mtop", NOW + 5)
    snapshot, change = watcher.take()
    assert change.changed == {device.id}
    assert snapshot.device(THUMB) == enrolled
    assert (enrolled.host, enrolled.enrolled, enrolled.revision) == ("lap?[31mtop", NOW + 5, snapshot.revision)


async def test_what_is_deleted_leaves_a_tombstone(store: Repository) -> None:
    tunnel = await add_tunnel(store)
    route = await store.add_route("ip", "10.0.0.0/8", "site", NOW)
    device = await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    await store.enrol(SECRET, THUMB, "", NOW)
    start = store.snapshot.revision
    watcher = Watcher(store)

    assert (await store.delete_device("laptop", NOW + 9)).id == device.id
    snapshot, change = watcher.take()
    assert snapshot.device(THUMB) is None
    assert [(stone.id, stone.kind, stone.revision) for stone in change.deleted] == [(device.id, "device", start + 1)]

    with pytest.raises(InUseError, match=r"routes lead to tunnel site \(10\.0\.0\.0/8\)"):
        await store.delete_tunnel("site", NOW)
    assert (watcher.seen, store.snapshot.revision) == ([], start + 1)
    await store.delete_tunnel("site", NOW, force=True)
    _, change = watcher.take()
    assert [stone.id for stone in change.deleted] == [route.id, tunnel.id]

    stones = store.tombstones(start)
    assert {(stone.id, stone.kind, stone.revision) for stone in stones} == {
        (device.id, "device", start + 1), (route.id, "route", start + 2), (tunnel.id, "tunnel", start + 2)
    }  # fmt: skip
    assert store.tombstones(start + 2) == []
    with pytest.raises(ExistsError, match="deleted before"):
        await add_tunnel(store)
    assert (await add_tunnel(store, id_="c" * 20)).name == "site"


async def test_a_route_is_deleted_alone(store: Repository) -> None:
    await add_tunnel(store)
    route = await store.add_route("ip", "10.0.0.0/8", "site", NOW)
    assert await store.delete_route(route.id, NOW) == route
    assert store.snapshot.network("default").cidrs == ()
    await store.delete_tunnel("site", NOW)
    await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    with pytest.raises(DeniedError):
        await store.enrol(b"other", THUMB, "", NOW)
    await store.delete_device("laptop", NOW)
    with pytest.raises(DeniedError, match="deleted"):
        await store.enrol(SECRET, THUMB, "", NOW)


Wrong = Callable[[Repository], Awaitable[object]]


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        (lambda s: add_tunnel(s, "site", "d" * 20), ExistsError, "there is a tunnel site already"),
        (lambda s: add_tunnel(s, "e" * 20, "a" * 20), ExistsError, "already"),
        (lambda s: add_tunnel(s, "b" * 20), ExistsError, "already"),
        (lambda s: add_tunnel(s, "no name"), InvalidError, "is no name of a tunnel"),
        (lambda s: add_tunnel(s, "x", "Short"), InvalidError, "is no id"),
        (lambda s: s.add_tunnel("f" * 20, "x", b"", b"s", 1, NOW), InvalidError, "CA certificate"),
        (lambda s: s.add_tunnel("f" * 20, "x", b"a", b"s" * 1025, 1, NOW), InvalidError, "statement"),
        (lambda s: s.add_tunnel("f" * 20, "x", b"a", b"s", 1 << 63, NOW), InvalidError, "revision"),
        (lambda s: s.add_route("ip", "10.1.0.0/8", "site", NOW), InvalidError, "write 10.0.0.0/8"),
        (lambda s: s.add_route("ip", "10.0.0.0/8", "sight", NOW), NotFoundError, "no tunnel 'sight': there are site"),
        (lambda s: s.add_route("ip", "172.16.0.0/12", "site", NOW), ExistsError, "leads to tunnel site in virtual"),
        (lambda s: s.add_route("host", "a..b", "site", NOW), InvalidError, "no hostname"),
        (lambda s: s.add_route("ip", "10.0.0.0/8", "site", NOW, vnet="A b"), InvalidError, "virtual network"),
        (lambda s: s.add_route("ip", "10.0.0.0/8", "site", NOW, comment="a\nb"), InvalidError, "control"),
        (lambda s: s.add_device("laptop", "00" * 32, NOW + 1, NOW), ExistsError, "there is a device laptop"),
        (lambda s: s.add_device("two", hashed(SECRET), NOW + 1, NOW), ExistsError, "secret"),
        (lambda s: s.add_device("two", "xx", NOW + 1, NOW), InvalidError, "SHA-256"),
        (lambda s: s.add_device("two", "00" * 32, NOW, NOW), InvalidError, "future"),
        (lambda s: s.delete_route("nothing", NOW), NotFoundError, "no route"),
        (lambda s: s.delete_device("nothing", NOW), NotFoundError, "there are laptop"),
        (lambda s: s.delete_tunnel("nothing", NOW), NotFoundError, "there are site"),
        (lambda s: s.tunnel("nothing"), NotFoundError, "there are site"),
    ],
)  # fmt: skip
async def test_what_is_refused_changes_nothing(
    store: Repository, wrong: Wrong, kind: type[StoreError], said: str
) -> None:
    await add_tunnel(store, id_="e" * 20)
    await store.add_tunnel("1" * 20, "b" * 19 + "c", b"a", b"s", 1, NOW)
    await store.add_tunnel("b" * 20, "third", b"a", b"s", 1, NOW)
    await store.delete_tunnel("b" * 19 + "c", NOW)
    await store.add_route("ip", "172.16.0.0/12", "site", NOW)
    await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    watcher, before = Watcher(store), store.snapshot
    with pytest.raises(kind, match=said) as refused:
        await wrong(store)
    assert str(refused.value).isprintable()
    assert (store.snapshot, watcher.seen) == (before, [])
    assert await store.refresh() is False


async def test_the_same_cidr_may_be_in_two_virtual_networks(store: Repository) -> None:
    await add_tunnel(store)
    one = await store.add_route("ip", "10.0.0.0/8", "site", NOW)
    two = await store.add_route("ip", "10.0.0.0/8", "site", NOW, vnet="lab")
    assert store.snapshot.network("default").cidrs == store.snapshot.network("lab").cidrs
    assert one.id != two.id


async def test_tables_are_bounded(store: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNNELS_LIMIT", "ROUTES_LIMIT", "DEVICES_LIMIT"):
        monkeypatch.setattr(module, name, 1)
    await add_tunnel(store)
    await store.add_route("ip", "10.0.0.0/8", "site", NOW)
    await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    for more in (
        add_tunnel(store, "second"),
        store.add_route("ip", "10.1.0.0/16", "site", NOW),
        store.add_device("second", "00" * 32, NOW + 60, NOW),
    ):
        with pytest.raises(LimitError, match="delete some first"):
            await more


async def test_an_enrolment_secret_works_once_and_in_time(store: Repository) -> None:
    await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    await store.add_device("second", hashed(b"second"), NOW + 60, NOW)
    for secret, thumbprint, now, said in (
        (b"forged", THUMB, NOW, "nobody waits"),
        (SECRET, THUMB, NOW + 60, "expired"),
        (SECRET, THUMB, NOW + 59, ""),
        (SECRET, "cd" * 32, NOW + 59, "laptop has used it"),
        (b"second", THUMB, NOW + 59, "enrolled already"),
        (b"second", "cd" * 32, NOW + 59, ""),
    ):
        if not said:
            await store.enrol(secret, thumbprint, "host", now)
            continue
        with pytest.raises(DeniedError, match=said) as refused:
            await store.enrol(secret, thumbprint, "host", now)
        assert refused.value.reason is Reason.ENROLMENT_KEY


async def test_of_racing_enrolments_one_wins(store: Repository, place: Path | str) -> None:
    """Two processes with eight devices each that hold the same key."""
    await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    other = await open_store(place)
    racers = [store.enrol(SECRET, f"{index:064x}", "", NOW) for index in range(8)]
    racers += [other.enrol(SECRET, f"{index:064x}", "", NOW) for index in range(8, 16)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    await other.close()
    winners = [result for result in results if not isinstance(result, BaseException)]
    losers = [result for result in results if isinstance(result, DeniedError)]
    assert (len(winners), len(losers)) == (1, 15)
    await store.refresh()
    assert list(store.snapshot.devices.values()) == winners


async def test_changes_of_two_processes_have_one_order(store: Repository, place: Path | str) -> None:
    other = await open_store(place)
    await add_tunnel(store)
    start = store.snapshot.revision
    watcher = Watcher(store)
    adding = [side.add_route("ip", f"10.{index}.0.0/16", "site", NOW) for index in range(10) for side in (store, other)]
    results = await asyncio.gather(*adding, return_exceptions=True)
    routes = [result for result in results if not isinstance(result, BaseException)]
    assert sorted(route.revision for route in routes) == list(range(start + 1, start + 11))
    assert {type(result) for result in results if isinstance(result, BaseException)} == {ExistsError}
    await store.refresh()
    await other.refresh()
    assert store.snapshot == other.snapshot or store.snapshot.routes == other.snapshot.routes
    revisions = [snapshot.revision for snapshot, _ in watcher.seen]
    assert revisions == sorted(set(revisions))
    await other.close()


async def test_what_another_process_changed_is_told_as_everything(store: Repository, place: Path | str) -> None:
    other = await open_store(place)
    await add_tunnel(other)
    watcher = Watcher(store)
    assert await store.refresh() is True
    snapshot, change = watcher.take()
    assert change.everything
    assert snapshot.routes == {}
    assert [tunnel.name for tunnel in snapshot.tunnels.values()] == ["site"]
    await other.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    await store.delete_tunnel("site", NOW)
    assert watcher.take()[1].everything
    await other.close()


async def test_seen_is_no_change(store: Repository) -> None:
    device = await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    before = store.snapshot
    await store.mark_seen({device.id: NOW + 7, "gone": NOW})
    await store.mark_seen({})
    assert [found.seen for found in await store.devices()] == [NOW + 7]
    assert store.snapshot is before
    assert await store.refresh() is False


async def test_an_epoch_is_always_above_the_last(store: Repository) -> None:
    assert store.snapshot.epoch == 1_000
    assert await store.new_epoch(500) == 1_001
    assert await store.new_epoch(5_000) == 5_000
    assert await store.new_epoch(5_001, above=9_000) == 9_001
    assert store.snapshot.epoch == 9_001


async def test_a_cancelled_change_is_made_whole_or_not_at_all(store: Repository) -> None:
    for turns in range(60):
        task = asyncio.ensure_future(add_tunnel(store, f"t{turns}"))
        for _ in range(turns % 20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await store.refresh()
    await add_tunnel(store, "last")
    assert await store.refresh() is False
    assert "last" in {tunnel.name for tunnel in store.snapshot.tunnels.values()}


async def test_everything_is_there_after_a_restart(store: Repository, place: Path | str) -> None:
    await add_tunnel(store)
    await store.add_route("host", "*.corp.internal", "site", NOW)
    await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    await store.enrol(SECRET, THUMB, "", NOW)
    again = await open_store(place)
    assert (again.snapshot.tunnels, again.snapshot.routes) == (store.snapshot.tunnels, store.snapshot.routes)
    assert again.snapshot.devices == store.snapshot.devices
    assert (again.snapshot.epoch, again.snapshot.revision) == (store.snapshot.epoch, store.snapshot.revision)
    await again.close()


async def test_a_device_is_changed_where_it_is_asked_for(store: Repository) -> None:
    watcher = Watcher(store)
    made = await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    watcher.take()
    changed = await store.set_device("laptop", vnet="lab", groups=["b", "a", "b"])
    snapshot, change = watcher.take()
    assert change == Change(frozenset({made.id}))
    assert (changed.vnet, changed.user, changed.groups, changed.tags) == ("lab", "", ("a", "b"), ())
    assert snapshot.devices_by_id[made.id] == changed
    again = await store.set_device(made.id, user="ann", tags=["x"])
    assert (again.vnet, again.user, again.groups, again.tags) == ("lab", "ann", ("a", "b"), ("x",))
    assert (await store.set_device(made.id, user="", groups=[])).groups == ()
    assert (await store.devices())[0].revision == store.snapshot.revision


async def test_an_enrolled_device_is_changed_in_the_snapshot_too(store: Repository) -> None:
    await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    await store.enrol(SECRET, THUMB, "host", NOW)
    await store.set_device("laptop", vnet="lab")
    device = store.snapshot.device(THUMB)
    assert device is not None and device.vnet == "lab"


async def test_a_user_chooses_among_what_the_administrator_allowed(store: Repository) -> None:
    made = await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    assert made.choices == ("default",)
    allowed = await store.set_device("laptop", vnets=["plant", "lab", "plant"])
    assert (allowed.vnet, allowed.choices) == ("default", ("default", "lab", "plant"))
    chosen = await store.choose_network(made.id, "plant")
    assert (chosen.vnet, chosen.home) == ("plant", "default")
    assert store.snapshot.devices_by_id[made.id] == chosen
    revision = store.snapshot.revision
    assert await store.choose_network(made.id, "plant") == chosen
    assert store.snapshot.revision == revision  # nothing has changed
    with pytest.raises(DeniedError, match="default, lab, plant") as denied:
        await store.choose_network(made.id, "board")
    assert denied.value.reason is Reason.VNET_NOT_ALLOWED
    with pytest.raises(DeniedError) as denied:
        await store.choose_network("another", "plant")
    assert denied.value.reason is Reason.DEVICE_UNKNOWN


async def test_a_choice_that_is_not_allowed_any_more_leads_home(store: Repository) -> None:
    made = await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    await store.set_device("laptop", vnet="lab", vnets=["plant", "board"])
    await store.choose_network(made.id, "plant")
    assert (await store.set_device("laptop", vnets=["plant"])).vnet == "plant"
    assert (await store.set_device("laptop", user="ann")).vnet == "plant"
    assert (await store.set_device("laptop", vnets=[])).vnet == "lab"
    await store.set_device("laptop", vnets=["plant"])
    await store.choose_network(made.id, "plant")
    moved = await store.set_device("laptop", vnet="board")  # the administrator's word is the last one
    assert (moved.vnet, moved.choices) == ("board", ("board", "plant"))


@pytest.mark.parametrize(
    "change",
    [
        {"vnet": "Lab"}, {"vnet": ""}, {"user": "a\x1b"}, {"user": "a" * 256}, {"user": " ann"},
        {"groups": ["a b"]}, {"tags": [""]}, {"tags": [f"t{n}" for n in range(65)]},
        {"vnets": ["Lab"]}, {"vnets": [f"v{n}" for n in range(65)]},
    ],
)  # fmt: skip
async def test_a_change_of_a_device_that_is_refused_changes_nothing(store: Repository, change: dict[str, Any]) -> None:
    await store.add_device("laptop", hashed(SECRET), NOW + 60, NOW)
    before = store.snapshot
    with pytest.raises(InvalidError):
        await store.set_device("laptop", **change)
    with pytest.raises(NotFoundError):
        await store.set_device("another", vnet="lab")
    assert store.snapshot is before


async def test_a_tunnel_gets_another_key_and_keeps_the_one_before_for_a_while(store: Repository) -> None:
    watcher = Watcher(store)
    first = await add_tunnel(store)
    watcher.take()
    before = hashlib.sha256(first.authority).digest()
    both = await store.set_authority("site", b"second", b"signed", 2, former=before, until=NOW + 9)
    snapshot, change = watcher.take()
    assert snapshot.tunnel(first.id) == both == await store.tunnel("site")
    assert (both.authority, both.signed, both.former, both.until) == (b"second", 2, first.authority, NOW + 9)
    assert change == Change(frozenset({first.id}))
    one = await store.set_authority("site", b"second", b"signed again", 3)
    assert (one.authority, one.statement, one.former, one.until) == (b"second", b"signed again", b"", 0)

    for problem, authority, signed, former in (
        (ExistsError, b"third", 3, b""),
        (InvalidError, b"third", 4, before),
        (InvalidError, b"", 4, b""),
    ):
        with pytest.raises(problem):
            await store.set_authority("site", authority, b"signed", signed, former=former, until=NOW)
    with pytest.raises(NotFoundError):
        await store.set_authority("sight", b"third", b"signed", 4)
    assert await store.tunnel("site") == one
