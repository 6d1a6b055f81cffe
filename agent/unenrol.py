"""Takes this device out: its key, its enrolment and the addresses of its names."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from warren.agent.control import require_free
from warren.agent.host.journal import Journal
from warren.agent.host.undo import UNDOERS
from warren.fabric.core.errors import ConfigError

FILES = ("device.json", "device.key", "edges", "network.der", "names", "names.new")
"""The description first: what is left of half a removal does not look like an enrolment."""


def found(state: Path) -> list[Path]:
    """The device's files that are there."""
    return [state / name for name in FILES if (state / name).is_file()]


def unenrol(state: Path, socket: Path) -> str:
    """Removes the device's files and gives its name. Raises ConfigError: an agent runs, or they can't be removed.

    What a killed agent left on the host is undone first. Files that are not the agent's stay, and the directory too.
    """
    require_free(socket)
    journal = Journal.open(state, UNDOERS, lock_wait_s=0.5)
    try:
        if journal.left_over.kept:
            notes = "; ".join(journal.left_over.notes)
            raise ConfigError(f"changes of an agent that was killed could not be undone ({notes}): try it as root")
        name = _name(state)
        for path in found(state):
            try:
                path.unlink()
            except OSError as error:
                raise ConfigError(f"{path} can't be removed: {error.strerror}") from None
        (state / "host.lock").unlink(missing_ok=True)
    finally:
        journal.close()
    with contextlib.suppress(OSError):  # not empty, or not ours to remove
        state.rmdir()
        if state.parent.name == "warren":
            state.parent.rmdir()
    return name


def _name(state: Path) -> str:
    try:
        return str(json.loads((state / "device.json").read_text())["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return "NAME"
