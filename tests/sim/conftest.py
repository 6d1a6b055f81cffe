"""What the simulated floor shares."""

from __future__ import annotations

import os

import pytest

from tests.certificates import Shown, certificates

SEEDS = int(os.environ.get("WARREN_SEEDS", "10"))
"""Seeds of each torture; WARREN_SEEDS=N for more."""


@pytest.fixture(scope="session")
def shown() -> Shown:
    """One root, chain and key for all tests of this floor."""
    return certificates()
