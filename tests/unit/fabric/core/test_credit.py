"""Windows by cumulative offset."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.aio.pump import CHUNK
from warren.fabric.core.credit import (
    INITIAL_WINDOW,
    LARGEST_WINDOW,
    OFFSET_LIMIT,
    PARTS,
    Allowance,
    Budget,
    Window,
)


def test_an_older_or_absurd_credit_changes_nothing() -> None:
    allowance = Allowance()
    assert allowance.room == INITIAL_WINDOW
    assert allowance.raise_to(INITIAL_WINDOW + 5) and allowance.room == INITIAL_WINDOW + 5
    assert not allowance.raise_to(INITIAL_WINDOW) and not allowance.raise_to(OFFSET_LIMIT + 1)
    assert allowance.room == INITIAL_WINDOW + 5


def test_credit_comes_back_in_parts_of_the_window() -> None:
    window, part = Window(Budget(0)), INITIAL_WINDOW // PARTS
    assert window.arrived(INITIAL_WINDOW) and not Window(Budget(0)).arrived(INITIAL_WINDOW + 1)
    assert window.took(part - 1, 0.0, 0.01) is None
    assert window.took(1, 0.0, 0.01) == part + INITIAL_WINDOW


def test_a_reader_as_fast_as_the_writer_gets_a_window_for_some_round_trips() -> None:
    window, now = Window(Budget()), 0.0
    for _ in range(200):  # 20 MB/s at a round trip of 45 ms: 4 MB in 0.2 s
        now += 0.001
        window.took(20_000, now, 0.045)
    assert 4_000_000 <= window.size < 9_000_000


@pytest.mark.parametrize("late", [1, 2])
def test_a_window_does_not_limit_what_is_delivered_late_behind_losses(late: int) -> None:
    """Everything arrives so many round trips late, as behind packets that are lost again and again."""
    rate, round_trip, step = 12_500_000, 0.05, 0.001
    window, allowance, sent = Window(Budget()), Allowance(), 0
    due, credit, used = deque[tuple[float, int]](), deque[tuple[float, int]](), []
    for tick in range(4000):
        now = tick * step
        while credit and credit[0][0] <= now:
            allowance.raise_to(credit.popleft()[1])
        used.append(min(int(rate * step), allowance.limit - sent))
        sent += used[-1]
        due.append((now + round_trip * (0.5 + late), used[-1]))
        while due and due[0][0] <= now:
            if (offset := window.took(due.popleft()[1], now, round_trip)) is not None:
                credit.append((now + round_trip / 2, offset))
    assert sum(used[-2000:]) >= 0.99 * rate * 2000 * step


def test_a_reader_that_stops_keeps_what_it_had_and_gets_no_more() -> None:
    window = Window(Budget())
    window.took(1000, 0.0, 0.05)
    before = window.granted
    window.took(0, 10.0, 0.05)
    assert window.size == INITIAL_WINDOW and window.granted == before


def test_windows_share_one_budget_and_give_it_back() -> None:
    budget = Budget(1 << 20)
    windows = [Window(budget) for _ in range(4)]
    for window in windows:
        for step in range(1, 60):
            window.took(1 << 20, step * 0.05, 0.05)
    assert sum(window.size - INITIAL_WINDOW for window in windows) <= 1 << 20
    for window in windows:
        window.close()
    assert budget.left == 1 << 20


@given(st.lists(st.tuples(st.integers(0, 1 << 22), st.floats(0, 1), st.floats(0, 1)), max_size=60))
def test_bounds_hold_whatever_is_taken(steps: list[tuple[int, float, float]]) -> None:
    budget = Budget()
    window, now, granted = Window(budget), 0.0, INITIAL_WINDOW
    for count, wait, round_trip in steps:
        now += wait
        told = window.took(count, now, round_trip)
        if told is not None:
            assert told > granted or count == 0
            granted = max(granted, told)
        assert INITIAL_WINDOW <= window.size <= LARGEST_WINDOW
        assert window.granted - window.taken <= LARGEST_WINDOW
    window.close()
    assert budget.left == 256 << 20


def test_eight_of_the_largest_windows_and_what_is_held_besides_stay_below_128_mib() -> None:
    besides = CHUNK + INITIAL_WINDOW
    assert 8 * (LARGEST_WINDOW + besides) < 120 << 20
