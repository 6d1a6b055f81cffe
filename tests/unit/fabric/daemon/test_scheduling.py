"""The policy is taken for a while, given back, and never taken over somebody's own choice."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from warren.fabric.daemon.scheduling import in_batches


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    yield
    os.sched_setscheduler(0, before, os.sched_param(0))


def test_the_policy_lasts_as_long_as_it_is_wanted() -> None:
    with in_batches():
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_it_is_given_back_after_an_error_too() -> None:
    with pytest.raises(OSError, match="of the body"), in_batches():
        raise OSError("of the body")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_somebodys_own_choice_stays() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with in_batches():
        assert os.sched_getscheduler(0) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_IDLE


def test_a_sandbox_that_forbids_it_is_none_of_our_business(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    with in_batches():
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
