"""What programs have cost: processor time and memory of process trees, read from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

TICK = os.sysconf("SC_CLK_TCK")


def tree(roots: Iterable[int]) -> set[int]:
    """The processes and all their descendants that live now."""
    children: dict[int, list[int]] = defaultdict(list)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            children[int(_stat(int(process.name))[1])].append(int(process.name))
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found and Path(f"/proc/{pid}").exists():
            found.add(pid)
            waiting += children[pid]
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def processor(roots: Iterable[int]) -> float:
    """Seconds of processor time, user and system, that the trees have taken so far."""
    total = 0
    for pid in tree(roots):
        with suppress(OSError):
            fields = _stat(pid)
            total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(roots: Iterable[int], of: Literal["Pss", "Pss_Anon"] = "Pss") -> float:
    """MiB that the trees have in memory (PSS: pages that several share are counted once). Pss_Anon: without those of
    files, whose share changes with what other programs read."""
    total = 0
    for pid in tree(roots):
        with suppress(OSError, StopIteration):
            total += _kibibytes(Path(f"/proc/{pid}/smaps_rollup"), f"{of}:")
    return total / 1024


def _kibibytes(path: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(key))
