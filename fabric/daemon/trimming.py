"""Memory that is free goes back to the kernel, every few minutes, and not at every turn.

glibc gives back by itself only what lies at the end of its heap. What connections held for a moment lies in the middle,
between things that last: on a bad link a connector of 40 MiB came to keep 5 MiB that it made no use of. A trim takes a
millisecond; 20 to 80 where a GiB is in use.

Of its end it gives back too much, by its own measure (128 KiB): under one fast stream the same pages went and came
1,500 to 8,000 times a Gbit, as the heap happened to lie, which took 3 to 18 % of a daemon's processor time.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 300.0
"""Seconds from one trim to the next."""
KEPT = 8 << 20
"""Bytes at the end of the heap that stay until the next trim: what the buffers of a few fast flows take."""
APART = 1 << 20
"""Bytes of an object from which on it has pages of its own, given back with it: larger than any buffer of a flow."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@contextmanager
def trimmed(every: float = EVERY) -> Iterator[None]:
    """While this lasts, in the running loop. Nothing is done where the C library has no malloc_trim(3)."""
    trim = _malloc_trim()
    if trim is None:
        yield
        return
    _keep_end()
    trimming = asyncio.create_task(_trim_for_ever(trim, every))
    try:
        yield
    finally:
        trimming.cancel()


async def _trim_for_ever(trim: Callable[[int], int], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        trim(0)


def _keep_end() -> None:
    """For the whole process, and for good: mallopt(3) has no way back to what it does by itself."""
    allocator = ctypes.CDLL(None)
    allocator.mallopt(_M_TRIM_THRESHOLD, KEPT)
    allocator.mallopt(_M_MMAP_THRESHOLD, APART)


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
