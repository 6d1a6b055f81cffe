"""What a UDP socket does with what waited while its process stood still."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from warren.fabric.aio import udp
from warren.fabric.aio.udp import UdpSocket


class Heard:
    """Keeps what came."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []
        self.came = asyncio.Event()

    def handle_buffer(self, buffer: bytes, stride: int, address: object) -> None:
        self.buffers.append(buffer)

    def handle_received(self) -> None:
        if self.buffers:
            self.came.set()

    def handle_writable(self) -> None:
        pass


@pytest.mark.parametrize(("still", "heard"), [(0.0, [b"old", b"new"]), (0.3, [b"new"])])
def test_what_waited_for_a_process_that_stood_still_is_thrown_away(
    still: float, heard: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "STOOD_STILL", 0.1 if still else 60.0)
    asyncio.run(stand(still, heard))


async def stand(still: float, heard: list[bytes]) -> None:
    receiver = Heard()
    ours = UdpSocket(receiver, ("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"old", ours.address)
        time.sleep(still)  # noqa: ASYNC251 - the loop stands still
        deadline = time.monotonic() + 10
        while still and not ours.old and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.001)
        other.sendto(b"new", ours.address)
        async with asyncio.timeout(10):
            while len(receiver.buffers) < len(heard):
                receiver.came.clear()
                await receiver.came.wait()
    assert receiver.buffers == heard and ours.old == (1 if still else 0)
    ours.close()
