"""Delays that double."""

from __future__ import annotations

from warren.fabric.core.backoff import Backoff


def test_doubles_up_to_the_most_and_begins_again() -> None:
    backoff = Backoff(0.1, 1.0)
    assert [backoff.next() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next() == 0.1
    backoff.reset(5.0)
    assert backoff.next() == 1.0


def test_jitter_takes_up_to_half_off() -> None:
    assert Backoff(2.0, 8.0, lambda: 0.5).next() == 1.5
