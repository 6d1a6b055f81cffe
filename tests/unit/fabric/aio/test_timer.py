"""One timer, armed anew: on uvloop, whose clock counts whole milliseconds."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from warren.fabric.aio.timer import FUZZ, NEAR, Timer, clock


class Clocked:
    """A deadline of the test's, and what became of it."""

    def __init__(self, at: float) -> None:
        self.at: float | None = at
        self.looked = 0
        self.due: list[float] = []
        self.timer = Timer(self._deadline, self._due)

    def _deadline(self) -> float | None:
        self.looked += 1
        return self.at

    def _due(self, now: float) -> None:
        self.due.append(now)
        self.at = None
        self.timer.arm()


@pytest.mark.parametrize("ahead", [0.0, 0.0003, 0.0007, 0.005, 0.005001, 0.0107])
def test_it_is_due_once_and_does_not_spin_until_then(ahead: float) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        clocked = Clocked(at := loop.time() + ahead)
        clocked.timer.arm()
        clocked.timer.arm()
        await asyncio.sleep(0.05)
        assert len(clocked.due) == 1 and clocked.due[0] >= at
        # armed twice (the second time nothing is looked at where the wake-up is near), once woken, armed anew
        assert clocked.looked == (3 if ahead < NEAR else 4)

    uvloop.run(work())


def test_a_deadline_that_moves_is_followed() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        start, tick = loop.time(), 0.02
        clocked = Clocked(start + 2 * tick)
        clocked.timer.arm()
        clocked.at = start + tick  # sooner
        clocked.timer.arm()
        clocked.at = start + 3 * tick  # later: the handle stays, and looks when it wakes
        clocked.timer.arm()
        await asyncio.sleep(2.5 * tick)
        assert not clocked.due
        await asyncio.sleep(2 * tick)
        assert len(clocked.due) == 1 and clocked.due[0] >= start + 3 * tick - FUZZ

    uvloop.run(work())


def test_one_without_a_deadline_or_cancelled_is_not_due() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        clocked = Clocked(loop.time() + 0.005)
        clocked.timer.arm()
        clocked.at = None
        clocked.timer.arm()
        other = Clocked(loop.time() + 0.005)
        other.timer.arm()
        other.timer.cancel()
        await asyncio.sleep(0.02)
        assert not clocked.due and not other.due

    uvloop.run(work())


def test_the_time_of_a_call_is_finer_than_that_of_a_wake_up_and_on_its_scale() -> None:
    async def look() -> tuple[set[float], set[float]]:
        loop = asyncio.get_running_loop()
        now = clock(loop)
        return {now() for _ in range(200)}, {loop.time() for _ in range(200)}

    calls, wakes = uvloop.run(look())
    assert len(calls) > 20 > len(wakes)
    assert abs(min(calls) - min(wakes)) < 1.0


def test_a_loop_that_makes_its_own_time_is_believed() -> None:
    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return 5.0

    loop = Loop()
    assert clock(loop)() == 5.0
    loop.close()
