"""What the judge decided serves again while it is fresh."""

from __future__ import annotations

import asyncio

import pytest

from warren.agent import decisions
from warren.agent.decisions import FRESH, GRANTS, Decisions
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.session import Granted
from warren.fabric.core.reasons import Reason


class Judge:
    def __init__(self) -> None:
        self.asked: list[tuple[str, int, str, str]] = []

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Granted:
        self.asked.append((protocol, port, address, host))
        if port == 666:
            raise DeniedError(Reason.NO_ROUTE)
        return Granted(len(self.asked), b"", b"", "", "", b"", b"", "")


def test_a_grant_serves_again_until_it_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, now = Judge(), [0.0]
    monkeypatch.setattr(decisions.time, "monotonic", lambda: now[0])
    known = Decisions(judge)

    async def ask(**more: bool) -> int:
        return (await known.grant("tcp", 80, address="10.0.0.1", **more)).request

    async def main() -> None:
        assert await ask() == await ask() == 1
        assert await ask(fresh=True) == 2
        now[0] = FRESH - 0.1
        assert await ask() == 2
        now[0] = FRESH
        assert await ask() == 3
        known.forget()
        assert await ask() == 4
        await known.grant("udp", 80, address="10.0.0.1")
        assert len(judge.asked) == 5

    asyncio.run(main())


def test_a_refusal_is_not_remembered_and_the_table_is_bounded() -> None:
    judge = Judge()
    known = Decisions(judge)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(DeniedError):
                await known.grant("tcp", 666, host="payroll.internal")
        for port in range(1, GRANTS + 10):
            if port != 666:
                await known.grant("tcp", port, host="payroll.internal")
        assert len(known._grants) == GRANTS

    asyncio.run(main())
    assert judge.asked.count(("tcp", 666, "", "payroll.internal")) == 2


def test_what_was_asked_before_a_change_is_not_remembered_after_it() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    class Slow(Judge):
        async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Granted:
            granted = await super().decide(protocol, port, address=address, host=host)
            asked.set()
            await may_answer.wait()
            return granted

    known = Decisions(Slow())

    async def main() -> int:
        asking = asyncio.create_task(known.grant("tcp", 80, host="payroll.internal"))
        await asked.wait()
        known.forget()
        may_answer.set()
        assert (await asking).request == 1
        return (await known.grant("tcp", 80, host="payroll.internal")).request

    assert asyncio.run(main()) == 2
