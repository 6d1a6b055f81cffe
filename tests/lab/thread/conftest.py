"""One lab with Warren in it for all tests of this folder, since it takes some ten seconds to make.

Each test leaves it as it found it: an edge, a connector and an agent that work.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import faults
from warren.lab import OFFICE, Lab
from warren.lab.deployment import Deployment
from warren.lab.services import Services, start_services


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with Lab(OFFICE) as lab:
        yield lab


@pytest.fixture(scope="package")
def services(lab: Lab) -> Services:
    return start_services(lab)


@pytest.fixture(scope="package")
def deployment(lab: Lab, services: Services) -> Deployment:
    """An edge, which tells its metrics, a connector and an agent, through which a flow can open."""
    deployment = Deployment(lab)
    deployment.edge.write("/etc/warren/edge.yaml", "metrics: 127.0.0.1:9311\n")
    deployment.up()
    return deployment


@pytest.fixture(scope="module", autouse=True)
def no_fault_in_any_log(deployment: Deployment) -> Iterator[None]:
    """An error in a daemon's log fails the module, also where everything went on."""
    yield
    assert faults(deployment.lab) == {}
