"""What every test has: logs as the library sets them up, whatever a command under test did to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from xdist.scheduler import LoadScopeScheduling

from warren.fabric.aio import logs as set_up_logs

SHARE_A_LAB = ("tests/lab/thread/", "tests/lab/dns/", "tests/lab/roaming/")
REAL_TIME = ("tests/lab/", "tests/loopback/", "tests/apps/")
ORDER = ("tests/lab/thread/", "tests/lab/test_chaos", "tests/unit", "tests/loopback", "tests/lab", "tests/apps", "")
TOLD = 3000
"""Characters of a first try that failed."""


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """A command that sets up logs binds them to the standard error of its own test, which is closed after it."""
    yield
    set_up_logs.reset()


class ByLab(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """What shares a lab stays in one process; everything else goes to whoever has time, file by file, and on the
    simulated floor, whose files are long, test by test."""

    def _split_scope(self, nodeid: str) -> str:
        for folder in SHARE_A_LAB:
            if nodeid.startswith(folder):
                return folder
        return nodeid if nodeid.startswith("tests/sim/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByLab:
    """For `-n 3`, in the order that `pytest_collection_modifyitems` chooses."""
    config.option.loadscopereorder = False
    return ByLab(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, and what fills gaps comes last. What runs in real time is tried once more when it
    fails, and the summary names it: two cores with three labs are late now and then."""
    for item in items:
        if item.nodeid.startswith(REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=1))
    items.sort(key=lambda item: next(i for i, start in enumerate(ORDER) if item.nodeid.startswith(start)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why a test was tried once more: what was seen once may be a fault that is rare."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.write_sep("_", f"first try of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext[-TOLD:])
