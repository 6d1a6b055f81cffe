"""The clock of grants and leases."""

from __future__ import annotations

import time


def elapsed() -> float:
    """Seconds of CLOCK_BOOTTIME, which goes on while the host is suspended, and which nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
