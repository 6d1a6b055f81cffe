"""What every test has: logs as the library sets them up, whatever a command under test did to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from warren.fabric.aio import logs as set_up_logs


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """A command that sets up logs binds them to the standard error of its own test, which is closed after it."""
    yield
    set_up_logs.reset()
