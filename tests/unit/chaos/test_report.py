"""The page and the picture, of a run made up."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from tests.chaos.__main__ import options
from tests.chaos.apps import BLOCK, piece
from tests.chaos.kinds import KINDS
from tests.chaos.report import page, percentile, picture, targets
from tests.chaos.run import faults, order


def one(kind: str, after: float, lost: int = 0, may_lose: int = 0) -> dict[str, Any]:
    app = {"stall": after + 1, "after": after, "first": after, "lost": ["reset"] * lost, "unopened": [], "wrong": 0}
    return {"kind": kind, "apps": {"ssh": {**app, "may_lose": may_lose}}}


def run(*events: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": {"cores": 2, "processor": "some", "kernel": "Linux", "python": "3"},
        "engine": "native", "seed": 1, "full": False, "seconds": 60.0,
        "load": [0.0, 1.0], "copied": 3, "events": list(events),
        "transactions": {"confirmed": 9, "half done": 0, "done twice": 0, "confirmed and missing": 0},
    }  # fmt: skip


def test_percentiles_are_values_that_were_found() -> None:
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.5, 0.99, 1.0)] == [2.0, 3.0, 3.0]
    assert percentile([], 0.5) is None


def test_targets_are_met_missed_or_not_tried() -> None:
    met = {
        title.split(":")[0] + str(number): met for number, (title, _, met) in enumerate(targets(run(one("cut", 0.6))))
    }
    assert list(met.values())[:4] == [None, None, None, False]
    killed = one("edge-killed", -0.8), one("edge-restarted", 0.2)
    words = [met for _, _, met in targets(run(*killed, one("address", -0.9), one("cut", 0.1)))]
    assert words == [True] * 9


def test_a_flow_lost_beyond_the_failure_table_is_a_fault() -> None:
    assert faults(one("connector-killed", 0.1, lost=1, may_lose=1)) == []
    assert faults(one("cut", 0.1, lost=1)) == ["cut: ssh lost 1: reset"]


def test_the_page_and_the_picture_hold_every_kind_that_was_tried() -> None:
    said = run(*(one(name, 0.3, lost=1) for name in KINDS))
    text, drawn = page(said), picture(said)
    ElementTree.fromstring(drawn)
    assert all(kind.title in text and kind.title in drawn for kind in KINDS.values())


def test_a_seed_repeats_the_order() -> None:
    def names(seed: int) -> list[str]:
        events = order(seed, list(KINDS))
        return [next(events)[0].name for _ in range(2 * len(KINDS))]

    assert names(1) == names(1) != names(2)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_kind_comes_once_before_any_comes_again_and_long_ones_last(seed: int) -> None:
    asked = options(["--seed", str(seed)])
    assert asked.minutes == 10.0 and asked.kinds == list(KINDS)
    events = order(seed, asked.kinds)
    for _ in range(3):
        drawn = [next(events)[0] for _ in KINDS]
        assert sorted(kind.name for kind in drawn) == sorted(KINDS)
        assert [kind.long for kind in drawn] == sorted(kind.long for kind in KINDS.values())


def test_pieces_are_of_one_endless_pattern() -> None:
    near_the_end = 7 * len(BLOCK) - 10
    assert piece(near_the_end, 30) == BLOCK[-10:] + BLOCK[:20]
    assert piece(near_the_end, 15) + piece(near_the_end + 15, 15) == piece(near_the_end, 30)
