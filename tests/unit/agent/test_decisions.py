"""What is remembered of the judge's decisions, and when it is not."""

from __future__ import annotations

import asyncio

from warren.agent.decisions import Decisions
from warren.fabric.core.messages.session import Granted


class SlowJudge:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Granted:
        self.asked += 1
        number = self.asked
        self.is_asked.set()
        await self.may_answer.wait()
        return Granted(number, b"grant", b"", "tunnel", "office", b"", b"", "route")


def test_a_decision_is_remembered_until_something_changes() -> None:
    async def story() -> list[int]:
        judge = SlowJudge()
        judge.may_answer.set()
        decisions = Decisions(judge)
        seen = [(await decisions.grant("tcp", 80, host="a")).request for _ in range(2)]
        decisions.forget()
        return [*seen, (await decisions.grant("tcp", 80, host="a")).request]

    assert asyncio.run(story()) == [1, 1, 2]


def test_what_was_asked_before_a_change_is_not_remembered_after_it() -> None:
    async def story() -> int:
        judge = SlowJudge()
        decisions = Decisions(judge)
        asking = asyncio.create_task(decisions.grant("tcp", 80, host="a"))
        await judge.is_asked.wait()
        decisions.forget()
        judge.may_answer.set()
        await asking
        return (await decisions.grant("tcp", 80, host="a")).request

    assert asyncio.run(story()) == 2
