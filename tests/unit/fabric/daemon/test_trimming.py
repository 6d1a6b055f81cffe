"""What was held for a moment, between things that last, is the kernel's again."""

from __future__ import annotations

import asyncio
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


def test_without_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with trimmed(0.0):
            await asyncio.sleep(0.01)

    monkeypatch.setattr(trimming, "_malloc_trim", lambda: None)
    asyncio.run(main())
