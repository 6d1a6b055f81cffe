"""Who confirms flows, and for how long nobody has to."""

from __future__ import annotations

import math

from warren.connector.lease import Lease


def test_a_session_confirms_and_without_one_the_lease_runs_out_once() -> None:
    lease = Lease(600, 0)
    assert not lease.over(["a"], 1_000)
    assert not lease.over([], 1_600)
    assert lease.over([], 1_601)
    assert not lease.over([], 1_602)


def test_a_judge_that_can_not_read_its_store_confirms_what_it_has_read_last() -> None:
    lease = Lease(600, 0)
    lease.told("a", 5, 1_005)
    assert not any(lease.over(["a"], now) for now in range(1_005, 1_601))
    assert lease.over(["a"], 1_601)


def test_another_judge_confirms_and_so_does_the_same_one_when_it_can_read_again() -> None:
    lease = Lease(600, 0)
    lease.told("a", math.inf, 10)
    assert not lease.over(["a", "b"], 5_000)
    assert not lease.over(["a"], 5_600)
    lease.told("a", 0, 5_600)
    assert not lease.over(["a"], 9_000)
    lease.told("a", 1, 9_001)
    assert lease.over(["a"], 9_601)
