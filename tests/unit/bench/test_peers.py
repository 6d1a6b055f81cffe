"""A peer that can't run here is a row that says why."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.bench import path
from tests.bench.loads import Loads
from tests.bench.peers import Missing, Peer, programs


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(programs, "FOLDER", tmp_path / "peers")
    monkeypatch.setattr(programs.shutil, "which", lambda *name, **path: None)


@pytest.mark.usefixtures("nothing_installed")
def test_without_go_and_without_the_package() -> None:
    with pytest.raises(Missing, match="this machine has no Go, and the Debian package nebula is not installed"):
        programs.go_program("example.org/nebula/cmd/nebula", "nebula", "nebula")


@pytest.mark.usefixtures("nothing_installed")
def test_a_build_that_fails_falls_back_to_debians(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho needs a newer go >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setattr(programs.shutil, "which", lambda name, **path: str(go) if name == "go" else None)
    with pytest.raises(Missing, match=r"example.org/x@latest does not build here: needs a newer go, and the Debian"):
        programs.go_program("example.org/x", "x", "x")
    monkeypatch.setattr(programs.shutil, "which", lambda name, **path: str(go))
    assert not programs.go_program("example.org/x", "x", "x").current


class Stubborn(Peer):
    name = "stubborn"

    def up(self) -> None:
        raise RuntimeError("it says no\nand more")


def test_what_does_not_come_up_is_missing_with_its_reason() -> None:
    with pytest.raises(Missing, match=r"^does not come up: it says no$"):
        path.bring_up(Stubborn.__new__(Stubborn), cast(Loads, None))


def test_what_fails_later_is_a_row_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> dict[str, Any]:
        raise KeyError("sum")

    assert path.guarded("a peer", fails) == {"name": "a peer", "missing": "failed: 'sum'"}
    assert "KeyError" in capsys.readouterr().err


def test_a_topology_in_which_every_sender_uses_cubic() -> None:
    assert {host.congestion for host in path.topology().hosts} == {"cubic"}
    assert path.topology("laptop").host("laptop").congestion is None
