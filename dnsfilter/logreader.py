"""Reads the query log while it is written: from a cursor on, over the change to a new file; filters; the most frequent.

A cursor is `INODE-OFFSET`, so that it stays good when `queries.jsonl` becomes `queries.jsonl.1`.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from warren.fabric.core.errors import ConfigError

LOG: Final = "queries.jsonl"
BATCH: Final = 1 << 20
"""Bytes that are read at once."""
TOP_NAMES_MAX: Final = 500_000
"""Different names counted for `top`; what comes after them only counts for those."""
TAIL_LINE: Final = 400
"""Bytes of a line, on average, when the last ones are looked for."""


class Wanted(msgspec.Struct, frozen=True):
    """Which lines; empty: all."""

    verdict: str = ""
    device: str = ""
    user: str = ""
    name: str = ""
    """Part of the name."""
    since: float = 0.0
    """Unix time in seconds."""

    def has(self, line: dict[str, Any]) -> bool:
        return (
            self.verdict in ("", line.get("verdict"))
            and self.device in ("", line.get("device"), line.get("address"))
            and self.user in ("", line.get("user"))
            and self.name in line.get("name", "")
            and line.get("time", 0.0) >= self.since
        )


class Page(msgspec.Struct, frozen=True):
    """Lines as they stand in the log, and where the next ones begin."""

    lines: list[dict[str, Any]]
    cursor: str
    more: bool
    """Whether there is more already."""


def read(directory: Path, cursor: str, wanted: Wanted, limit: int) -> Page:
    """Lines from `cursor` on; "" is the beginning, "end" the end. Blocks on the disk, 1 MiB at most."""
    files = _files(directory)
    if not files:
        return Page([], "" if cursor in ("", "end") else cursor, more=False)
    inode, offset = _place(cursor, files)
    path = next(path for number, path in files if number == inode)
    begin, data, size = offset, b"", 0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        if os.fstat(file.fileno()).st_ino == inode:  # else it was renamed just now
            file.seek(offset)
            data, size = file.read(BATCH), os.fstat(file.fileno()).st_size
    lines: list[dict[str, Any]] = []
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n") or len(lines) >= limit:
            break
        offset += len(line)
        said = _decoded(line)
        if said is not None and wanted.has(said):
            lines.append(said)
    newer = [number for number, _ in files[files.index((inode, path)) + 1 :]]
    if size and offset >= size and newer:
        return Page(lines, f"{newer[0]}-0", more=True)
    return Page(lines, f"{inode}-{offset}", more=begin < offset < size)


def last(directory: Path, count: int) -> str:
    """A cursor some `count` lines before the end."""
    files = _files(directory)
    if not files:
        return ""
    inode, path = files[-1]
    size = path.stat().st_size
    offset = max(0, size - count * TAIL_LINE)
    with path.open("rb") as file:
        file.seek(offset)
        if offset:
            offset += len(file.readline())
    return f"{inode}-{offset}"


def every(directory: Path, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """All that the log has of them now."""
    cursor, more = "", True
    while more:
        page = read(directory, cursor, wanted, BATCH)
        yield from page.lines
        more = page.more and page.cursor != cursor
        cursor = page.cursor


def top(directory: Path, since: float, count: int) -> dict[str, list[tuple[str, int]]]:
    """The names, blocked names, clients and rules that a window has most of. Blocks: 1 s for some 64 MiB."""
    counters: dict[str, Counter[str]] = {word: Counter() for word in ("names", "blocked", "clients", "rules")}
    for line in every(directory, Wanted(since=since)):
        name = line.get("name", "")
        _count(counters["names"], name)
        _count(counters["clients"], line.get("device") or line.get("address") or "(not known)")
        if line.get("verdict") == "blocked":
            _count(counters["blocked"], name)
            _count(counters["rules"], line.get("rule") or line.get("stage", ""))
    return {word: counter.most_common(count) for word, counter in counters.items()}


def _count(counter: Counter[str], word: str) -> None:
    if word in counter or len(counter) < TOP_NAMES_MAX:
        counter[word] += 1


def _files(directory: Path) -> list[tuple[int, Path]]:
    """Those that are there, the older first, with their inodes."""
    found = []
    for path in (directory / f"{LOG}.1", directory / LOG):
        try:
            found.append((path.stat().st_ino, path))
        except FileNotFoundError:
            continue
    return found


def _place(cursor: str, files: list[tuple[int, Path]]) -> tuple[int, int]:
    if cursor == "end":
        inode, path = files[-1]
        return inode, path.stat().st_size
    if cursor:
        inode_text, dash, offset_text = cursor.partition("-")
        if not (dash and inode_text.isascii() and inode_text.isdecimal() and offset_text.isdecimal()):
            raise ConfigError("that is no place in the log: leave the cursor away")
        if any(int(inode_text) == inode for inode, _ in files):
            return int(inode_text), int(offset_text)
    return files[0][0], 0


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        said = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        return None
    return said if isinstance(said, dict) else None
