"""What an edge was asked and has not answered yet: one table for each kind of question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

T = TypeVar("T")

ANSWER_TIME, CIRCUIT_TIME = 8.0, 24.0
"""Seconds for a decision, and for a circuit: a switch parks a request for 5, for up to 20 where it is new."""
DOUBT = 1.0
"""Seconds without an answer of the judge after which we look whether it still is the same process."""


class Asked(Generic[T]):
    """The questions of one kind, by their number."""

    def __init__(
        self,
        what: str,
        flush: Callable[[], None],
        doubt: Callable[[], None],
        patience: float = DOUBT,
        limit: float = ANSWER_TIME,
    ) -> None:
        """`what`: their name in the plural, for whoever asks too many. `flush`: sends what was asked. `doubt`: called
        when one has waited for `patience` seconds. `limit`: seconds after which it counts as not answered."""
        self._what = what
        self._flush = flush
        self._doubt = doubt
        self._patience = patience
        self._limit = limit
        self._waiting: dict[int, asyncio.Future[T]] = {}

    async def answer(self, request: int | None) -> T:
        """What the edge says to that question; None: there was no room to ask it. Raises DeniedError."""
        if request is None:
            raise DeniedError(Reason.LIMIT, self._what)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting[request] = future
        self._flush()
        doubting = loop.call_later(self._patience, self._doubt)
        try:
            async with asyncio.timeout(self._limit):
                return await future
        except TimeoutError:
            raise DeniedError(Reason.JUDGE_AWAY, "no answer") from None
        finally:
            doubting.cancel()
            self._waiting.pop(request, None)

    def settle(self, request: int, value: T | None, reason: Reason = Reason.JUDGE_AWAY, detail: str = "") -> None:
        """The edge has answered; None: it refuses, for that reason."""
        future = self._waiting.pop(request, None)
        if future is None or future.done():
            return
        if value is None:
            future.set_exception(DeniedError(reason, detail))
        else:
            future.set_result(value)

    def lose(self) -> None:
        """The connection is over: whoever waits hears so."""
        for request in list(self._waiting):
            self.settle(request, None)
