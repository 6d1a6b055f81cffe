"""The stateful model of the whole product (machine.py), a little of it (at length: `make soak`), and its corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import conftest
from tests.sim.machine import explore
from tests.sim.replay import CORPUS, read
from tests.sim.script import play


@pytest.mark.parametrize("number", range(max(1, conftest.SEEDS // 10)))
def test_whatever_happens_what_should_live_lives(number: int) -> None:
    explore(number or None, 8)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")), ids=lambda path: path.stem)
def test_what_once_failed_does_not_fail_again(path: Path) -> None:
    play(read(path.read_text()))
