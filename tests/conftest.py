"""What every test has: logs as the library sets them up, whatever a command under test did to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from xdist.scheduler import LoadScopeScheduling

from warren.fabric.aio import logs as set_up_logs


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """A command that sets up logs binds them to the standard error of its own test, which is closed after it."""
    yield
    set_up_logs.reset()


class ByLab(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """One process works on tests/lab/thread, whose modules are many, one on the rest of tests/lab; whoever has time on
    the others, file by file, and on the simulated floor, whose files are long, test by test."""

    def _split_scope(self, nodeid: str) -> str:
        for folder in ("tests/lab/thread/", "tests/lab/"):
            if nodeid.startswith(folder):
                return folder
        return nodeid if nodeid.startswith("tests/sim/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByLab:
    """For `-n 2`."""
    return ByLab(config, log)
