"""Whether a process still answers: what lay unread when its end was noticed is no answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from warren.edge import connections as module
from warren.edge.connections import Connections

KEY = b"k"


class Process:
    """A node's connection and the edge's endpoint in one: packets come as `answers` says, one number for each probe."""

    def __init__(self, *answers: int) -> None:
        self.key, self.connection = KEY, self
        self.answers, self.received, self.probes = list(answers), 100, 0

    def statistics(self) -> SimpleNamespace:
        return SimpleNamespace(received=self.received)

    def probe(self, now: float) -> None:
        self.probes += 1
        asyncio.get_running_loop().call_later(0.005, self.answer, self.answers.pop(0))

    def answer(self, packets: int) -> None:
        self.received += packets

    def pto(self) -> float:
        return 0.0

    def nothing(self, *_: object) -> None:
        pass

    accept = active = transmit = timer = touch = nothing


@pytest.mark.parametrize(
    ("answers", "gone", "probes"),
    [
        pytest.param((0,), True, 1, id="nothing comes"),
        pytest.param((3, 0), True, 2, id="what lay unread, and nothing after it"),
        pytest.param((1, 1), False, 2, id="it answers"),
    ],
)
def test_only_who_answers_again_is_there(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[int, ...], gone: bool, probes: int
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIME", 0.02)

    async def main() -> None:
        process, said = Process(*answers), []
        attachments = SimpleNamespace(flush=process.nothing)
        connections = Connections(cast(Any, process), b"", cast(Any, None), cast(Any, attachments), lambda *_: True)
        connections._by_connection[cast(Any, process)] = cast(Any, process)
        connections.doubt(KEY, lambda: said.append(KEY))
        await asyncio.sleep(0.2)
        assert (said, process.probes) == ([KEY] if gone else [], probes)

    asyncio.run(main())
