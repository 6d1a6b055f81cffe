"""Applications that take long, or that are slow to install: `make test-apps` only, which sets WARREN_APPS."""

from __future__ import annotations

import os

import pytest

from tests.lab.thread.conftest import deployment, lab, no_fault_in_any_log, services

__all__ = ["deployment", "lab", "no_fault_in_any_log", "services"]

collect_ignore_glob = [] if os.environ.get("WARREN_APPS") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here + os.sep):
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.slow)
