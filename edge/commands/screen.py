"""How answers look: a table for people, JSON for programs. Answers on standard output, remarks on standard error."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.cells import cell_len


def show_json(value: Any) -> None:
    """As it came from the edge."""
    typer.echo(json.dumps(value, indent=2))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> None:
    """`nothing`: what is said when there are no rows. No line is cut or wrapped: tables are read by `grep` too."""
    if not rows:
        remark(nothing)
        return
    lines = [list(columns), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(columns))]
    for number, line in enumerate(lines):
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        typer.secho("  ".join(padded).rstrip(), bold=number == 0)


def remark(text: str) -> None:
    """A line for people that is no part of the answer."""
    typer.echo(plain(text), err=True)


def moment(seconds: object) -> str:
    """Unix time as local time; a dash for none."""
    if not isinstance(seconds, int | float) or not seconds:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def plain(value: object) -> str:
    """Without control characters: names that others chose end up on this terminal."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


def choices(items: Sequence[Mapping[str, Any]], words: Sequence[str]) -> str:
    """A short list of what was meant perhaps, for an error."""
    return "; ".join(" ".join(plain(_at(item, word)) for word in words) for item in items[:8])


def _at(item: Mapping[str, Any], path: str) -> object:
    value: Any = item
    for part in path.split("."):
        value = value[part]
    return value
