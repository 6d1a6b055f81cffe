"""A daemon that carries others' packets takes its turn on a processor instead of interrupting whoever has it.

By default the kernel hands the processor over as soon as a packet wakes us: to a switch that is as often as somebody
else's sender has put one buffer into our socket, and that sender has to wait in the middle of its batch. Under
SCHED_BATCH (sched(7)) we run when the other one's slice is over, or he has nothing left to do, or another processor is
free, and find everything that has come meanwhile (docs/decisions/0016).

The agent does without: on a user's device there are others that keep every processor busy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def in_batches() -> Iterator[None]:
    """While this lasts, for the calling thread and what it starts. A policy that somebody chose for us (chrt(1), a
    unit's CPUSchedulingPolicy) stays; where the kernel has none of this, or a sandbox forbids it, nothing is done."""
    if not _change("SCHED_OTHER", "SCHED_BATCH"):
        yield
        return
    try:
        yield
    finally:
        _change("SCHED_BATCH", "SCHED_OTHER")


def _change(before: str, after: str) -> bool:
    try:
        if os.sched_getscheduler(0) != getattr(os, before):
            return False
        os.sched_setscheduler(0, getattr(os, after), os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True
