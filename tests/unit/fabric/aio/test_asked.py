"""Questions to an edge: answered, refused, lost with the connection, forgotten; in doubt after a while."""

from __future__ import annotations

import asyncio

import pytest

from warren.fabric.aio.asked import Asked
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason


def nothing() -> None:
    pass


async def denied(question: asyncio.Task[str]) -> Reason:
    with pytest.raises(DeniedError) as error:
        await question
    return error.value.reason


def test_each_answer_reaches_whoever_asked_once_it_was_sent() -> None:
    async def ask() -> None:
        sent: list[None] = []
        questions = Asked[str]("questions", lambda: sent.append(None), nothing)
        first, second = (asyncio.create_task(questions.answer(number)) for number in (1, 2))
        await asyncio.sleep(0)
        assert len(sent) == 2
        questions.settle(2, "two")
        questions.settle(1, None, Reason.NO_ROUTE)
        questions.settle(9, "nobody asked")
        assert await second == "two"
        assert await denied(first) is Reason.NO_ROUTE

    asyncio.run(ask())


def test_what_there_was_no_room_to_ask_is_refused_at_once() -> None:
    async def ask() -> None:
        questions = Asked[str]("questions", nothing, nothing)
        assert await denied(asyncio.create_task(questions.answer(None))) is Reason.LIMIT

    asyncio.run(ask())


def test_whoever_waits_hears_that_the_connection_is_over() -> None:
    async def ask() -> None:
        questions = Asked[str]("questions", nothing, nothing)
        task = asyncio.create_task(questions.answer(1))
        await asyncio.sleep(0)
        questions.lose()
        assert await denied(task) is Reason.JUDGE_AWAY

    asyncio.run(ask())


def test_silence_is_doubted_and_then_given_up() -> None:
    async def ask() -> None:
        doubts: list[None] = []
        questions = Asked[str]("questions", nothing, lambda: doubts.append(None), patience=0.01, limit=0.1)
        assert await denied(asyncio.create_task(questions.answer(1))) is Reason.JUDGE_AWAY
        assert doubts
        questions.settle(1, "too late")

    asyncio.run(ask())
