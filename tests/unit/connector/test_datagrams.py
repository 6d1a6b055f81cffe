"""The connector's end of a datagram flow: closed, with its socket, when nothing passes for too long."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

from warren.connector.datagrams import DatagramFlow


class Quiet(DatagramFlow):
    def send(self, payload: bytes) -> None:
        self._used = self._loop.time()

    def _readable(self) -> None:
        pass


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
        end = Quiet(nothing, given, ours, 0.2, lambda: flushed.append(None), lambda flow: over.set(), Counter())
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)
        end.send(b"once more")
        async with asyncio.timeout(10):
            await over.wait()
        assert asyncio.get_running_loop().time() - began >= 0.3
        assert ours.fileno() < 0 and flow.resets == 1
        theirs.close()

    asyncio.run(wait())


def test_one_that_is_hurried_ends_as_soon_as_it_has_rested() -> None:
    async def wait() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        flow, over = Reset(), asyncio.Event()
        nothing: Any = None
        given: Any = flow
        end = Quiet(nothing, given, ours, 180.0, lambda: None, lambda flow: over.set(), Counter())
        end.hurry(300.0)  # is later, and changes nothing
        assert not over.is_set() and end._idle == 180.0
        end.hurry(0.1)
        async with asyncio.timeout(10):
            await over.wait()
        assert ours.fileno() < 0 and flow.resets == 1
        theirs.close()

    asyncio.run(wait())
