"""Labs for tests: one for each module that asks, with a random name, taken down whatever happens."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from warren.lab import OFFICE, Lab, Topology
from warren.lab.deployment import Deployment
from warren.lab.services import Services, start_services


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs root: skipped without, unless WARREN_REQUIRE_LAB says that it must run."""
    here = os.path.dirname(__file__)
    may_skip = os.geteuid() != 0 and not os.environ.get("WARREN_REQUIRE_LAB")
    for item in items:
        if str(item.path).startswith(here + os.sep):
            item.add_marker(pytest.mark.lab)
            if may_skip:
                item.add_marker(pytest.mark.skip(reason="needs root for network namespaces"))


@pytest.fixture(scope="module")
def topology() -> Topology:
    """What `lab` is made from; a module that wants another one overrides this fixture."""
    return OFFICE


@pytest.fixture(scope="module")
def lab(topology: Topology) -> Iterator[Lab]:
    """The module's lab, without servers."""
    with Lab(topology) as lab:
        yield lab


@pytest.fixture(scope="module")
def services(lab: Lab) -> Services:
    """The servers of the office, running in the module's `lab`."""
    return start_services(lab)


FAULT = re.compile(r"\[(error|critical)|^Traceback|^\w*(Error|Exception):|was never (awaited|retrieved)", re.MULTILINE)
"""What no daemon's log may hold."""


@pytest.fixture(scope="module")
def deployment(lab: Lab, services: Services) -> Iterator[Deployment]:
    """Warren in the module's lab, with an edge, a connector and an agent; a fault in one of their logs fails it."""
    deployment = Deployment(lab)
    deployment.up()
    yield deployment
    assert faults(lab) == {}


def faults(lab: Lab) -> dict[str, str]:
    """The logs of daemons that show a fault, by name."""
    logs = {log.name: log.read_text(errors="replace") for log in lab.logs.glob("warren-*.log")}
    return {name: text for name, text in logs.items() if FAULT.search(text)}
