"""Memory that is free goes back to the kernel, every few minutes.

glibc gives back by itself only what lies at the end of its heap. What connections held for a moment lies in the middle,
between things that last: on a bad link a connector of 40 MiB came to keep 5 MiB that it made no use of. A trim takes a
millisecond; 20 to 80 where a GiB is in use.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 300.0
"""Seconds from one trim to the next."""


@contextmanager
def trimmed(every: float = EVERY) -> Iterator[None]:
    """While this lasts, in the running loop. Nothing is done where the C library has no malloc_trim(3)."""
    trim = _malloc_trim()
    if trim is None:
        yield
        return
    trimming = asyncio.create_task(_trim_for_ever(trim, every))
    try:
        yield
    finally:
        trimming.cancel()


async def _trim_for_ever(trim: Callable[[int], int], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        trim(0)


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
