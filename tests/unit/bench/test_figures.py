from __future__ import annotations

import pytest

from tests.bench import figures


def test_a_median_is_of_the_rounds_that_have_the_figure() -> None:
    rounds = [{"up": {"gbit": 1.0}}, {"up": None}, {"up": {"gbit": 3.0}}, {"up": {"gbit": 2.0}}]
    assert figures.median(rounds, "up", "gbit") == 2.0
    assert figures.median(rounds, "down", "gbit") is None


def test_medians_have_the_shape_of_a_round() -> None:
    rounds = [
        {"one": {"gbit": 1.0, "processor": {"hub": 0.1}}, "eight": None},
        {"one": {"gbit": 5.0, "processor": {"hub": 0.3}}, "eight": 2.0},
        {"one": {"gbit": 2.0, "processor": {"hub": 0.2}}, "eight": 4.0},
    ]
    assert figures.medians(rounds) == {"one": {"gbit": 2.0, "processor": {"hub": 0.2}}, "eight": 3.0}


def test_what_no_round_has_is_none() -> None:
    assert figures.medians([{"one": None}, {"one": None}]) == {"one": None}


@pytest.mark.parametrize(
    ("one", "other", "ratio"), [(4.0, 2.0, 2.0), (None, 2.0, None), (1.0, None, None), (1, 0, None)]
)
def test_a_ratio_needs_both(one: float | None, other: float | None, ratio: float | None) -> None:
    assert figures.ratio(one, other) == ratio


def test_what_is_added_is_not_below_nothing() -> None:
    assert figures.less(0.3, 0.1) == pytest.approx(0.2)
    assert figures.less(0.1, 0.3) == 0
    assert figures.less(None, 0.3) is None


def test_a_table_is_markdown() -> None:
    text = figures.table(["a", "b"], [[figures.written(1.234, 1), figures.written(None)]])
    assert text == "| a | b |\n| --- | --- |\n| 1.2 | – |"
