"""A look whether an edge is the same process, at an edge that does not say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from warren.fabric.aio import doubt
from warren.fabric.core.link import LinkClosed


class Unanswered:
    """A connection that nobody answers; `told`: what is to be told of it soon."""

    told: LinkClosed | None = None

    def __init__(self, engine: Any, config: Any, address: Any, handle: Any, families: Any, mark: int = 0) -> None:
        self._handle = handle

    def start(self) -> None:
        if self.told is not None:
            asyncio.get_running_loop().call_soon(self._handle, self.told)

    def probe(self) -> None:
        pass

    def close(self, reason: Any) -> None:
        pass


async def look(pause: float) -> tuple[bytes, float]:
    """The boot id, and how long it took, where somebody asks it to ask again every so often."""
    nothing: Any = None
    loop = asyncio.get_running_loop()
    began, one = loop.time(), doubt.Look(nothing, nothing, nothing)
    asking = asyncio.create_task(one.boot())
    async with asyncio.timeout(5):
        while not asking.done():
            await asyncio.sleep(pause)
            if not asking.done():
                one.again()
    return await asking, loop.time() - began


def test_whoever_asks_again_and_again_keeps_no_look_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt, "Call", Unanswered)
    monkeypatch.setattr(doubt, "LOOK_TIME", 0.1)
    boot, took = asyncio.run(look(0.02))
    assert boot == b"" and 0.2 <= took < 1.0


def test_a_connection_that_is_over_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt, "Call", Unanswered)
    monkeypatch.setattr(Unanswered, "told", LinkClosed(1, "", True))
    boot, took = asyncio.run(look(0.01))
    assert boot == b"" and took < 1.0
