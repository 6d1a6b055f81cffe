"""What every test has: logs as the library sets them up, whatever a command under test did to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """A command that sets up logs binds them to the standard error of its own test, which is closed after it."""
    yield
    structlog.reset_defaults()
