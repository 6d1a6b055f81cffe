"""The copy from which an edge starts while the database is away: what was written is read, or nothing is."""

from __future__ import annotations

import math
import stat
from pathlib import Path

from warren.dnsfilter.policies import Revision
from warren.edge.store.copy import StoreCopy
from warren.edge.store.records import Device, Route, Tombstone, Tunnel
from warren.edge.store.snapshot import build
from warren.fabric.aio.elapsed import elapsed

TUNNEL = Tunnel("t" * 20, "office", b"authority", b"statement", 2, 10, 3, b"former", 99)
ROUTE = Route("r" * 20, "resolver", "corp.example", TUNNEL.id, "default", "", 11, 4, ("10.0.0.53:53",))
DEVICE = Device(
    "d" * 20, "laptop", "ab" * 32, "host", "default", "ann", ("staff",), (), 5, 6, 7, 8, 9, "default", ("lab",)
)  # fmt: skip
SNAPSHOT = build(1_000, 12, [TUNNEL], [ROUTE], [DEVICE], b"edges", Revision(3, 20, "rules: []", "a note"))
GONE = [Tombstone("g" * 20, "route", 11, 30)]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    copy = StoreCopy(tmp_path / "store.copy", "own")
    assert copy.read() is None
    copy.write(SNAPSHOT, [], elapsed())
    copy.write(SNAPSHOT, GONE, elapsed() - 50)
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600
    kept = copy.read()
    assert kept is not None
    assert 50 <= kept.age < 100
    assert kept.tombstones == GONE
    for name in ("epoch", "revision", "devices", "devices_by_id", "tunnels", "routes", "edges", "policy"):
        assert getattr(kept.snapshot, name) == getattr(SNAPSHOT, name)
    assert kept.snapshot.network("default").zones == SNAPSHOT.network("default").zones


def test_after_another_boot_nobody_knows_how_old_it_is(tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("one")
    copy = StoreCopy(tmp_path / "store.copy", "own", boot)
    copy.write(SNAPSHOT, GONE, elapsed())
    boot.write_text("another")
    kept = copy.read()
    assert kept is not None and kept.age == math.inf


def test_what_is_damaged_or_another_edges_is_no_copy(tmp_path: Path) -> None:
    copy = StoreCopy(tmp_path / "store.copy", "own")
    copy.write(SNAPSHOT, GONE, elapsed())
    assert StoreCopy(copy.path, "another").read() is None
    whole = copy.path.read_bytes()
    for damaged in (b"", whole[:-1], whole[1:], b"\xc1" + whole):
        copy.path.write_bytes(damaged)
        assert copy.read() is None
