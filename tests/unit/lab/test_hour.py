"""The hour in the lab: what happens repeats with the seed; growth and faults are seen."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from tests.lab.hour import report
from tests.lab.hour.memory import figures, flat
from tests.lab.hour.weather import changes


def test_what_happens_repeats_and_is_all_of_it() -> None:
    found = list(islice(changes(7), 13))
    assert [(one.title, one.impairment) for one in found] == [
        (one.title, one.impairment) for one in islice(changes(7), 13)
    ]
    first, *rest = found
    assert first.impairment is not None and 0.01 <= first.impairment.loss <= 0.03 and first.impairment.reorder
    assert {one.title.split(" of ")[0] for one in rest} == {
        "another loss and delay",
        "the laptop's NAT rebinds",
        "the office's NAT rebinds",
        "a path MTU",
    }


@pytest.mark.parametrize(
    ("sizes", "is_flat"),
    [
        ([30 + 10 * min(1, i / 60) for i in range(361)], True),
        ([40 + i * 0.001 for i in range(361)], True),
        ([40 + i * 0.02 for i in range(361)], False),
    ],
    ids=["grows at the begin", "hardly", "leaks"],
)
def test_growth_is_seen(sizes: list[float], is_flat: bool) -> None:
    its = figures([10.0 * i for i in range(361)], sizes)
    assert its["start"] == sizes[0] and its["max"] == sizes[-1]
    assert flat(its) is is_flat


def test_the_page_tells_faults() -> None:
    held = {"start": 40.0, "first": 41.0, "last": 41.0, "max": 42.0}
    app: dict[str, Any] = {"flows": 1, "bytes": 10**7, "wrong": 0, "lost": [], "unopened": [], "stall": 0.5}
    app |= {"after": "the start", "sent": 0, "missing": 0}
    said: dict[str, Any] = {
        "machine": {"cores": 2, "processor": "a processor", "kernel": "Linux 6", "python": "3.11"},
        "engine": "warren-quic 1",
        "seed": 1,
        "every": 20.0,
        "seconds": 3600.0,
        "changes": {"the laptop's NAT rebinds": 30},
        "line": {"arrived": 1000, "lost": 0.02},
        "processor": 0.1,
        "everything": 0.2,
        "apps": {"stream up": app},
        "memory": {"agent": {"held": held, "own": held, "flat": True}},
        "logs": [],
    }
    assert report.faults(said) == [] and "No fault." in report.page(said)
    app |= {"wrong": 3, "lost": ["ended"], "stall": 11.0}
    said["memory"]["agent"]["flat"] = False
    said["logs"] = ["warren-agent.log"]
    assert len(report.faults(said)) == 5
    assert all(line in report.page(said) for line in report.faults(said))
