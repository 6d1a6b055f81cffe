"""The journal of changes to the host: each with its undo, on disk before the change is made.

A file of JSON lines (mode 0600) in the agent's state directory: `{"n": 3, "undo": {"kind": "route", …}}` before a
change, `{"undone": 3}` after it was taken back. Replaying runs the undos that are left, newest first; every undo is
idempotent and harmless if the change was never made. What a newer version wrote and this one does not know is kept.

A lock beside it is held by the agent and its guardian together, so that a new agent waits until an old guardian is
done. Imports here are light: the guardian is this module and little more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

from warren.fabric.core.errors import ConfigError

MAX_LINES = 4_096
"""Lines before the file is written anew: routes come and go with every change of link, and the file must not grow."""
LOCK_WAIT_S = 10.0
"""How long a new agent waits for the guardian of a killed one, which takes well under a second."""
_LOCK_POLL_S = 0.05

Undo: TypeAlias = dict[str, Any]
"""JSON object; `kind` names who undoes it (see `undo`)."""
Undoer: TypeAlias = Callable[[Undo], str | None]
"""Takes one change back. Returns a note for the log if something was left as it is; raises OSError if it failed."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay did. `kept`: undos that failed or are of a kind unknown here; they are in the journal still."""

    undone: int = 0
    notes: tuple[str, ...] = ()
    kept: tuple[Undo, ...] = ()


class Journal:
    """The open journal of a running agent. Its methods may be called from any thread."""

    def __init__(self, path: Path, lock: int, undoers: dict[str, Undoer]) -> None:
        self.path = path
        self.lock = lock
        """Descriptor of the lock, for the guardian to inherit."""
        self.left_over = Replay()
        """What `open` found and undid of an agent that ended without its guardian (power loss)."""
        self._undoers = undoers
        self._pending: dict[int, Undo] = {}
        self._next = 1
        self._lines = 0
        self._fd = -1
        self._one_at_a_time = threading.RLock()

    @classmethod
    def open(cls, directory: Path, undoers: dict[str, Undoer], lock_wait_s: float = LOCK_WAIT_S) -> Self:
        """Take the lock, undo what was left over, begin. `ConfigError` if an agent runs or the directory can't be used.

        Blocks up to `lock_wait_s` (a killed agent's guardian may still be at work).
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(directory / "host.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"can't use the state directory {directory}: {error.strerror}") from error
        _take(lock, lock_wait_s, directory)
        journal = cls(directory / "host.journal", lock, undoers)
        journal.left_over = replay(journal.path, undoers)
        journal._pending = _pending(journal.path)
        journal._next = max(journal._pending, default=0) + 1
        return journal

    def record(self, undo: Undo) -> int:
        """Write an undo down, durably. Make the change only when this has returned."""
        with self._one_at_a_time:
            number = self._next
            self._next += 1
            self._append({"n": number, "undo": undo})
            self._pending[number] = undo
            return number

    def undone(self, number: int) -> None:
        """The change of `record` has been taken back, or was not made."""
        with self._one_at_a_time:
            if self._pending.pop(number, None) is not None:
                self._append({"undone": number})

    def undo(self, number: int) -> str | None:
        """Take one change back now; OSError if that failed (it stays in the journal)."""
        undo = self._pending.get(number)
        if undo is None:
            return None
        note = self._undoers[undo["kind"]](undo)
        self.undone(number)
        return note

    @contextlib.contextmanager
    def change(self, undo: Undo) -> Iterator[int]:
        """Record, let the caller make the change, and take it back if that raises."""
        number = self.record(undo)
        try:
            yield number
        except BaseException:
            with contextlib.suppress(OSError):
                self.undo(number)
            raise

    def undo_all(self) -> Replay:
        """Take everything back, newest first: the clean end."""
        with self._one_at_a_time:
            self._close_file()
            done = replay(self.path, self._undoers)
            self._pending = _pending(self.path)
            return done

    def close(self) -> None:
        """Let go of file and lock (the guardian may hold the lock still). Undoes nothing."""
        self._close_file()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def _append(self, entry: dict[str, Any]) -> None:
        if self._lines >= MAX_LINES:
            self._close_file()
            _rewrite(self.path, self._pending)
            self._lines = len(self._pending)
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _sync_directory(self.path.parent)
        os.write(self._fd, json.dumps(entry).encode() + b"\n")
        os.fsync(self._fd)
        self._lines += 1

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def replay(path: Path, undoers: dict[str, Undoer]) -> Replay:
    """Run what is left in the journal, newest first; afterwards it holds only what could not be undone, or is gone."""
    pending = _pending(path)
    if not pending:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return Replay()
    notes: list[str] = []
    kept: dict[int, Undo] = {}
    for number in sorted(pending, reverse=True):
        note = _run(pending[number], undoers)
        if note is None:
            continue
        done, text = note
        notes.append(text)
        if not done:
            kept[number] = pending[number]
    _rewrite(path, kept)
    return Replay(len(pending) - len(kept), tuple(notes), tuple(kept.values()))


def _run(undo: Undo, undoers: dict[str, Undoer]) -> tuple[bool, str] | None:
    """None: undone. Otherwise whether the matter is settled, and what to tell."""
    kind = str(undo.get("kind"))
    undoer = undoers.get(kind)
    if undoer is None:
        return False, f"a change of the kind {kind!r} was made by another version; it stays in the journal"
    try:
        note = undoer(undo)
    except Exception as error:  # one that fails, for whatever reason, must not keep the others from being undone
        return False, f"a change of the kind {kind!r} could not be undone: {error!r}"
    return None if note is None else (True, note)


def _pending(path: Path) -> dict[int, Undo]:
    """Undos that are left. A line cut short by a crash is one whose change was never made."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    pending: dict[int, Undo] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            if "undone" in entry:
                pending.pop(int(entry["undone"]), None)
            elif isinstance(entry["undo"], dict):
                pending[int(entry["n"])] = entry["undo"]
        except (ValueError, KeyError, TypeError):
            continue
    return pending


def _rewrite(path: Path, pending: dict[int, Undo]) -> None:
    if not pending:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        for number in sorted(pending):
            file.write(json.dumps({"n": number, "undo": pending[number]}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _take(lock: int, wait_s: float, directory: Path) -> None:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(lock)
                raise ConfigError(
                    f"another agent is running with {directory}: stop it with `warren agent down`"
                ) from None
            time.sleep(_LOCK_POLL_S)
