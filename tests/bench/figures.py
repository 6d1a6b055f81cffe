"""Figures of several rounds: medians, shares, and how they are written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

NONE = "–"


def get(said: Any, *keys: str) -> float | None:
    """A number out of nested dictionaries; None where something on the way is missing or no number."""
    for key in keys:
        if not isinstance(said, dict):
            return None
        said = said.get(key)
    return float(said) if isinstance(said, int | float) else None


def median(rounds: Sequence[Any], *keys: str) -> float | None:
    """Of the rounds that have the figure."""
    found = [value for one in rounds if (value := get(one, *keys)) is not None]
    return statistics.median(found) if found else None


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One dictionary of the shape of each, with the medians of their numbers."""
    made: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in rounds for key in one):
        values = [one[key] for one in rounds if one.get(key) is not None]
        if values and all(isinstance(value, dict) for value in values):
            made[key] = medians(values)
        else:
            made[key] = statistics.median(values) if values else None
    return made


def ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def less(one: float | None, other: float | None) -> float | None:
    """`one` without `other`, not below 0."""
    return None if one is None or other is None else max(0.0, one - other)


def total(said: Any) -> float | None:
    """The sum of a dictionary's numbers; None if it has none."""
    values = [value for value in (said or {}).values() if value is not None]
    return sum(values) if values else None


def written(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A figure as it stands in a table."""
    return NONE if value is None else f"{value:.{digits}f}{unit}"


def percent(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:.{digits}%}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
