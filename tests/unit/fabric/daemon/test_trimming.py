"""What was held for a moment, between things that last, is the kernel's again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from warren.fabric.daemon import trimming
from warren.fabric.daemon.trimming import trimmed


def own() -> int:
    """KiB of this process that are no file's."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(trimming._malloc_trim() is None, reason="another C library than glibc")
def test_free_memory_is_given_back() -> None:
    async def main() -> None:
        with trimmed(0.05):
            lasting, passing = [], []
            for _ in range(600):  # 36 MiB
                passing.append(bytearray(60_000))
                lasting.append(bytearray(600))
            full = own()
            passing.clear()
            async with asyncio.timeout(10):
                while own() > full - 30_000:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert len(lasting) == 600

    asyncio.run(main())


FASTER = """
import asyncio, resource
from warren.fabric.daemon.trimming import trimmed

async def main():
    with trimmed():
        for turn in range(30):
            if turn == 10:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            buffers = [bytes(60_000) for _ in range(100)]
            del buffers
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

asyncio.run(main())
"""
"""Six MB come and go 20 times: 30,000 pages, where all are given back and fetched again."""


@pytest.mark.skipif(trimming._malloc_trim() is None, reason="another C library than glibc")
def test_buffers_that_come_and_go_keep_their_pages() -> None:
    """In a process of its own, since the allocator keeps what it is told."""
    found = subprocess.run([sys.executable, "-c", FASTER], capture_output=True, text=True, check=True, timeout=60)
    assert int(found.stdout) < 5000


def test_without_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with trimmed(0.0):
            await asyncio.sleep(0.01)

    monkeypatch.setattr(trimming, "_malloc_trim", lambda: None)
    asyncio.run(main())
