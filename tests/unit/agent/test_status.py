"""The status as it is printed: what others chose as a name is text, and nothing is cut for a program."""

from __future__ import annotations

from typing import Any

import pytest

from warren.agent.watch import show

FLOW = {
    "destination": "[fd00::1]:443", "origin": "fd00::1", "tunnel": "x" * 60, "connector": "c" * 8, "circuit": "d" * 14,
    "state": "open", "lasted": 1.0, "sent": 0, "received": 0,
}  # fmt: skip
SAID: dict[str, Any] = {
    "device": {"name": "lap[/nope]top :smile:"}, "vnet": "default", "engine": "native", "controller": "warren",
    "edges": [{"edge": "[2001:db8::1]:4433", "state": "connected", "reason": ""}],
    "routes": {"installed": ["fd00::/8"], "excluded": [], "suspended": []},
    "dns": {"scope": "routed", "zones": [], "resolver": "100.80.0.2", "system": "set"},
    "tunnels": [], "flows": [FLOW], "refused": [],
}  # fmt: skip


def test_names_are_no_markup_and_lines_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show(SAID)
    said = capsys.readouterr().out
    assert "lap[/nope]top :smile:" in said and "[2001:db8::1]:4433  connected" in said
    (flow,) = (line for line in said.splitlines() if line.startswith("[fd00::1]:443"))
    assert "x" * 60 in flow and "…" not in said
    assert all(line == line.rstrip() for line in said.splitlines())
