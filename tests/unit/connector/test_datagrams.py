"""The connector's end of a datagram flow: closed, with its socket, when nothing passes for too long."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

import pytest

from warren.connector import datagrams
from warren.connector.datagrams import DatagramFlow


class Quiet(DatagramFlow):
    def send(self, payload: bytes) -> None:
        self._used = self._clock()

    def _readable(self) -> None:
        pass


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "LOOKS", 0.01)


class Reset:
    """A flow, as far as its end goes."""

    resets = 0

    def reset(self) -> None:
        self.resets += 1


def test_an_idle_flow_is_closed_with_its_socket() -> None:
    async def wait() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        flow, over, flushed = Reset(), asyncio.Event(), list[None]()
        nothing: Any = None
        given: Any = flow
        clock = asyncio.get_running_loop().time
        end = Quiet(nothing, given, ours, 0.2, lambda: flushed.append(None), lambda flow: over.set(), Counter(), clock)
        began = clock()
        await asyncio.sleep(0.1)
        end.send(b"once more")
        async with asyncio.timeout(10):
            await over.wait()
        assert clock() - began >= 0.3
        assert ours.fileno() < 0 and flow.resets == 1
        theirs.close()

    asyncio.run(wait())


def test_one_that_is_hurried_ends_as_soon_as_it_has_rested() -> None:
    async def wait() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        flow, over = Reset(), asyncio.Event()
        nothing: Any = None
        given: Any = flow
        clock = asyncio.get_running_loop().time
        end = Quiet(nothing, given, ours, 180.0, lambda: None, lambda flow: over.set(), Counter(), clock)
        end.hurry(300.0)  # is later, and changes nothing
        assert not over.is_set() and end._idle == 180.0
        end.hurry(0.1)
        async with asyncio.timeout(10):
            await over.wait()
        assert ours.fileno() < 0 and flow.resets == 1
        theirs.close()

    asyncio.run(wait())


def test_one_whose_clock_stands_still_waits_and_is_looked_at_rarely() -> None:
    async def wait() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        flow, over, looks, now = Reset(), asyncio.Event(), asyncio.Event(), [100.0]
        nothing: Any = None
        given: Any = flow
        seen = list[float]()

        def clock() -> float:
            seen.append(asyncio.get_running_loop().time())
            if len(seen) > 5:
                looks.set()
            return now[0]

        end = Quiet(nothing, given, ours, 0.001, lambda: None, lambda flow: over.set(), Counter(), clock)
        async with asyncio.timeout(10):
            await looks.wait()
            assert ours.fileno() >= 0 and not over.is_set()
            assert seen[5] - seen[0] > 4 * datagrams.LOOKS
            now[0] += 1.0
            await over.wait()
        assert end._socket.fileno() < 0
        theirs.close()

    asyncio.run(wait())
