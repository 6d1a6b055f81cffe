"""The journal: written before, replayed backwards, total over what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.agent.host.journal import MAX_LINES, Journal, Replay, Undo, replay
from warren.fabric.core.errors import ConfigError


class Undone:
    """An undoer that remembers, and fails or has something to say where told to."""

    def __init__(self) -> None:
        self.what: list[object] = []

    def __call__(self, undo: Undo) -> str | None:
        if undo.get("fails"):
            raise OSError(5, "no")
        self.what.append(undo["what"])
        return undo.get("note")


def test_undone_backwards_and_only_what_is_left(tmp_path: Path) -> None:
    undone = Undone()
    journal = Journal.open(tmp_path, {"test": undone})
    numbers = [journal.record({"kind": "test", "what": what}) for what in "abcd"]
    assert journal.path.stat().st_mode & 0o777 == 0o600
    journal.undone(numbers[1])
    assert journal.undo(numbers[3]) is None
    assert journal.undo_all() == Replay(2)
    assert undone.what == ["d", "c", "a"]
    assert not journal.path.exists()
    assert journal.undo_all() == Replay()
    journal.close()


def test_left_over_is_undone_at_the_next_start(tmp_path: Path) -> None:
    first = Journal.open(tmp_path, {"test": Undone()})
    first.record({"kind": "test", "what": 1})
    first.close()
    undone = Undone()
    second = Journal.open(tmp_path, {"test": undone})
    assert second.left_over == Replay(1)
    assert undone.what == [1]
    second.close()


def test_unknown_and_failed_ones_are_kept_and_the_others_undone(tmp_path: Path) -> None:
    undone = Undone()
    journal = Journal.open(tmp_path, {"test": undone})
    newer = {"kind": "from-a-newer-version", "x": 1}
    failing = {"kind": "test", "what": 2, "fails": True}
    for undo in ({"kind": "test", "what": 1, "note": "left alone"}, newer, failing):
        journal.record(undo)
    journal.close()
    done = replay(journal.path, {"test": undone})
    assert undone.what == [1]
    assert done.undone == 1
    assert done.kept == (failing, newer)
    assert len(done.notes) == 3
    again = Journal.open(tmp_path, {"test": undone})
    assert again.left_over.kept == (failing, newer)
    number = again.record({"kind": "test", "what": 3})
    assert again.undo(number) is None
    assert undone.what == [1, 3]
    again.close()


def test_a_change_that_fails_is_taken_back(tmp_path: Path) -> None:
    undone = Undone()
    journal = Journal.open(tmp_path, {"test": undone})
    with pytest.raises(ValueError, match="kernel"), journal.change({"kind": "test", "what": 1}):
        assert b'"what": 1' in journal.path.read_bytes()  # on disk before the change
        raise ValueError("kernel says no")
    assert undone.what == [1]
    assert journal.undo_all() == Replay()
    journal.close()


def test_one_agent_at_a_time(tmp_path: Path) -> None:
    first = Journal.open(tmp_path, {})
    with pytest.raises(ConfigError, match="another agent"):
        Journal.open(tmp_path, {}, lock_wait_s=0.0)
    first.close()
    Journal.open(tmp_path, {}, lock_wait_s=0.0).close()


def test_a_directory_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="state directory"):
        Journal.open(tmp_path / "file", {})


def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    journal = Journal.open(tmp_path, {"test": Undone()})
    journal.record({"kind": "test", "what": 0})
    for what in range(MAX_LINES):
        journal.undone(journal.record({"kind": "test", "what": what}))
    assert len(journal.path.read_bytes().splitlines()) <= MAX_LINES
    assert journal.undo_all().undone == 1
    journal.close()


@given(st.binary(max_size=200))
def test_total(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.journal"
    undone = Undone()
    path.write_bytes(b'{"n": 1, "undo": {"kind": "test", "what": 1}}\n' + data + b'\n[1]\n"x"\n{"n": 2, "undo": {"kin')
    replay(path, {"test": undone})
    assert undone.what in ([1], [])
