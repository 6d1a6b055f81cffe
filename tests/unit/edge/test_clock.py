"""The time that an edge signs does not jump with the host's clock."""

from __future__ import annotations

import time

from warren.edge.clock import SteadyClock


def test_a_clock_that_is_set_changes_nothing_that_is_signed() -> None:
    wall, elapsed = [1_000_000.0], [50.0]
    clock = SteadyClock(lambda: wall[0], lambda: elapsed[0])
    assert clock() == 1_000_000.0
    for set_to in (1_003_600.0, 996_400.0):
        wall[0] = set_to
        elapsed[0] += 10.0
        assert clock() == 1_000_000.0 + elapsed[0] - 50.0


def test_it_begins_as_the_wall_clock_is() -> None:
    assert abs(SteadyClock()() - time.time()) < 5.0
