"""Waiting for a condition, instead of for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_AGAIN_AFTER = 0.02  # seconds: far below what a person or a test's bound notices


def wait_until(condition: Callable[[], T], what: str, timeout: float = 10.0) -> T:
    """Call `condition` until it returns something true, and return that; TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(LOOK_AGAIN_AFTER)
    return value
