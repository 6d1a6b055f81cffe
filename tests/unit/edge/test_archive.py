from __future__ import annotations

import asyncio
import io
import os
import sqlite3
import stat
import tarfile
import time
from pathlib import Path

import pytest

from warren.edge import admin, archive, state
from warren.edge.archive import backup, restore
from warren.edge.state import load_credentials
from warren.edge.store.database import open_store
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.statements import Edge


def make_store(path: Path) -> None:
    async def make() -> None:
        repository = await open_store(path, create=True)
        await repository.new_epoch(1000)
        await repository.add_device("laptop", "0" * 64, int(time.time()) + 3600, int(time.time()))
        await repository.close()

    asyncio.run(make())


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    admin.create(tmp_path / "admin", tmp_path / "state", Edge("a" * 20, "edge.example.net", 4433, "fra"), make_store)
    return tmp_path / "state"


def devices(directory: Path) -> list[str]:
    with sqlite3.connect(directory / state.STORE) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM devices")]


def test_a_backup_holds_the_edge_and_nothing_of_the_administrator(edge: Path, tmp_path: Path) -> None:
    backup(edge, tmp_path / "b.tar")
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
    whole = (tmp_path / "b.tar").read_bytes()
    assert (tmp_path / "admin" / admin.NETWORK_KEY).read_bytes() not in whole
    assert (tmp_path / "admin" / admin.AUTHORITY_KEY).read_bytes() not in whole
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert sorted(tar.getnames()) == sorted([*state.CREDENTIALS, state.STORE])
    assert sorted(os.listdir(tmp_path)) == ["admin", "b.tar", "state"]


def test_the_edge_comes_back_with_a_newer_epoch(edge: Path, tmp_path: Path) -> None:
    before = load_credentials(edge)
    with state.locked(edge):  # as a running edge holds it
        backup(edge, tmp_path / "b.tar")
    epoch = restore(tmp_path / "b.tar", tmp_path / "new")
    after = load_credentials(tmp_path / "new")
    assert (after.edge, after.key, after.network) == (before.edge, before.key, before.network)
    assert devices(tmp_path / "new") == ["laptop"]
    assert epoch > 1000
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert restore(tmp_path / "b.tar", tmp_path / "new", force=True) > epoch


def test_a_restore_over_an_edge_wants_force_and_no_running_edge(edge: Path, tmp_path: Path) -> None:
    backup(edge, tmp_path / "b.tar")
    before = {path.name: path.read_bytes() for path in edge.iterdir()}
    with pytest.raises(ConfigError, match="--force"):
        restore(tmp_path / "b.tar", edge)
    assert {path.name: path.read_bytes() for path in edge.iterdir()} == before
    with state.locked(edge), pytest.raises(ConfigError, match="stop it first"):
        restore(tmp_path / "b.tar", edge, force=True)
    restore(tmp_path / "b.tar", edge, force=True)
    assert devices(edge) == ["laptop"]


def test_an_existing_file_is_not_overwritten(edge: Path, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="already"):
        backup(edge, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_bytes() == b"mine"
    with pytest.raises(ConfigError, match="no directory"):
        backup(edge, tmp_path / "none" / "b.tar")
    (edge / state.STORE).unlink()
    with pytest.raises(ConfigError, match="no store"):
        backup(edge, tmp_path / "c.tar")
    assert sorted(os.listdir(tmp_path)) == ["admin", "b.tar", "state"]


def rebuilt(source: Path, target: Path, change: dict[str, tarfile.TarInfo | bytes | None]) -> None:
    """A copy of an archive in which some members are others, or (None) not there."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member)
            data = content.read() if content else b""
            other = change.pop(member.name, data)
            if isinstance(other, bytes):
                member.size = len(other)
                new.addfile(member, io.BytesIO(other))
            elif other is not None:
                new.addfile(other)
        for other in change.values():
            if isinstance(other, tarfile.TarInfo):
                new.addfile(other, io.BytesIO(b"x" * other.size))
    target.chmod(0o600)


def strange(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "change",
    [
        {state.KEY: None},
        {state.STORE: None},
        {state.KEY: b"no key"},
        {state.STORE: b"no store"},
        {state.STORE: b"SQLite format 3\0" + bytes(500)},
        {state.EDGES: b"\0" * 100},
        {state.KEY: b"x" * 100_000},
        {"../evil": strange("../evil")},
        {"/evil": strange("/evil")},
        {"extra": strange("extra")},
        {state.KEY: strange(state.KEY, tarfile.SYMTYPE, "/etc/passwd")},
        {state.KEY: strange(state.KEY, tarfile.LNKTYPE, "edge.pem")},
        {state.KEY: strange(state.KEY, tarfile.FIFOTYPE)},
        {"twice": strange(state.KEY)},
    ],
)
def test_a_strange_backup_is_refused_and_leaves_nothing(edge: Path, tmp_path: Path, change: dict[str, object]) -> None:
    backup(edge, tmp_path / "b.tar")
    rebuilt(tmp_path / "b.tar", tmp_path / "strange.tar", dict(change))  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        restore(tmp_path / "strange.tar", tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["admin", "b.tar", "state", "strange.tar"]


def test_what_is_no_backup_is_refused(edge: Path, tmp_path: Path) -> None:
    backup(edge, tmp_path / "b.tar")
    whole = (tmp_path / "b.tar").read_bytes()
    for data in (b"", b"nonsense", whole[:700], whole[: len(whole) // 2], bytes(2048)):
        (tmp_path / "x").write_bytes(data)
        (tmp_path / "x").chmod(0o600)
        with pytest.raises(ConfigError) as caught:
            restore(tmp_path / "x", tmp_path / "new")
        assert "\n" not in str(caught.value)
    (tmp_path / "b.tar").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        restore(tmp_path / "b.tar", tmp_path / "new")
    with pytest.raises(ConfigError, match="No such file"):
        restore(tmp_path / "none", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_full_leaves_no_half_backup(edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.tarfile.TarFile, "add", full)
    with pytest.raises(ConfigError, match="No space left"):
        backup(edge, tmp_path / "b.tar")
    assert sorted(os.listdir(tmp_path)) == ["admin", "state"]
