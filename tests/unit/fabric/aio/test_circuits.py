"""What a circuit socket makes of what its connections tell."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from warren.fabric.aio.circuits import BLACK_HOLE, CircuitSocket
from warren.fabric.core import frames

CIRCUIT = b"circuit"


@pytest.mark.parametrize(("lost", "told"), [(BLACK_HOLE, [CIRCUIT]), (BLACK_HOLE - 1, [])])
def test_large_packets_that_vanish_are_told_to_both_ends(lost: int, told: list[bytes]) -> None:
    asyncio.run(look(lost, told))


async def look(lost: int, expected: list[bytes]) -> None:
    """Two looks within a second: the slot binds once, the other end hears once."""
    told, looked = list[bytes](), asyncio.Event()

    def pto() -> float:
        looked.set()
        return 0.1

    connection = SimpleNamespace(large_lost=lambda: lost, pto=pto)
    path: Any = SimpleNamespace(uses=lambda header: True, flight=None, drive=SimpleNamespace(connection=connection))
    keeper: Any = SimpleNamespace(swallows=told.append)
    socket = CircuitSocket(0, ("127.0.0.1", 9), keeper)
    try:
        socket.given(bytes(7), bytes(16))
        assert socket.slot is not None
        while socket.slot.poll_transmit() is not None:
            pass
        socket.slot._pending = False  # the first Bind has been answered
        socket.add(frames.header(CIRCUIT), path)
        for _ in range(2):
            socket.look_soon()
            await asyncio.wait_for(looked.wait(), 10)
            looked.clear()
        assert told == expected
    finally:
        socket.close()
