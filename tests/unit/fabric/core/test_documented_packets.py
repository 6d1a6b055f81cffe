"""The packets that docs/protocol.md shows are those that the code makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from warren.fabric.core import frames
from warren.fabric.core.frames import REBIND, Bound, Cookie
from warren.fabric.core.messages.attachment import TO_SWITCH, Drop

PAGE = re.sub(r"\s", "", (Path(__file__).parents[4] / "docs" / "protocol.md").read_text())
SLOT, CIRCUIT = bytes.fromhex("a1b2c3d4e5f607"), bytes.fromhex("0c1a2b3c4d5e6f")
KEY = bytes(range(16))
COOKIE = Cookie(86_400_000, 1232, b"\x5d" * 16)


@pytest.mark.parametrize(
    "packet",
    [
        frames.header(CIRCUIT),
        frames.bind(SLOT, KEY, 3, True, 1232)[:34],
        frames.challenge(SLOT, 3, COOKIE)[:44],
        frames.answer(SLOT, KEY, 3, True, COOKIE),
        frames.bound(KEY, Bound(SLOT, 3, 2, 1, 1232)),
        frames.hint(REBIND, CIRCUIT),
        TO_SWITCH.encode(Drop(CIRCUIT, 61)),
    ],
    ids=["data", "bind", "challenge", "answer", "bound", "hint", "drop"],
)
def test_worked_packets(packet: bytes) -> None:
    assert packet.hex() in PAGE
