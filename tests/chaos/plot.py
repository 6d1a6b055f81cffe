"""A picture of stalls as SVG: a row for each kind, a dot for each event and app, seconds on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

LEFT, RIGHT, TOP, ROW, BOTTOM = 250, 30, 40, 34, 50
WIDTH = 900
TICKS = (0.01, 0.1, 1.0, 10.0, 100.0)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a7f00")
"""Okabe and Ito's (their yellow darker, on white), which the colour-blind can tell apart."""

Values = Mapping[str, Sequence[float]]
"""App → seconds."""


def at(seconds: float) -> float:
    """Where a value stands on the axis, in pixels."""
    low, high = math.log10(TICKS[0]), math.log10(TICKS[-1])
    share = (math.log10(max(seconds, TICKS[0])) - low) / (high - low)
    return LEFT + min(share, 1.0) * (WIDTH - LEFT - RIGHT)


def plot(title: str, rows: Mapping[str, Values]) -> str:
    """`rows`: title of a kind → its values."""
    apps = list(dict.fromkeys(app for values in rows.values() for app in values))
    height = TOP + ROW * len(rows) + BOTTOM
    bottom = TOP + ROW * len(rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in TICKS:
        x = at(tick)
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g} s</text>')
    for number, (name, values) in enumerate(rows.items()):
        lines += _row(name, values, apps, TOP + ROW * number)
    for number, app in enumerate(apps):
        x = 20 + number * (WIDTH - 40) / len(apps)
        lines.append(f'<circle cx="{x:.1f}" cy="{height - 14}" r="4" fill="{COLOURS[number % len(COLOURS)]}"/>')
        lines.append(f'<text x="{x + 8:.1f}" y="{height - 10}">{escape(app)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(name: str, values: Values, apps: Sequence[str], top: float) -> list[str]:
    lines = [
        f'<line x1="10" x2="{WIDTH - RIGHT}" y1="{top}" y2="{top}" stroke="#eee"/>',
        f'<text x="{LEFT - 10}" y="{top + ROW / 2 + 4}" text-anchor="end">{escape(name)}</text>',
    ]
    for number, app in enumerate(apps):
        y = top + (number + 1) * ROW / (len(apps) + 1)
        colour = COLOURS[number % len(COLOURS)]
        lines += [
            f'<circle cx="{at(value):.1f}" cy="{y:.1f}" r="3" fill="{colour}" fill-opacity="0.7"/>'
            for value in values.get(app, ())
        ]
    return lines
