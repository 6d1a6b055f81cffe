"""The pump between a real kernel socket and a flow, whose peer is a stand-in that holds bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from warren.fabric.aio.pump import Pump
from warren.fabric.core.credit import INITIAL_WINDOW, Budget
from warren.fabric.core.flow import Ending, Flow


class HeldPeer:
    """Takes what flows write up to `room`, and remembers what it was told."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.room = 1 << 30
        self.credits: list[int] = []
        self.ends: list[tuple[Ending, int]] = []

    def write(self, flow: Flow, data: Any) -> int:
        count = min(len(data), self.room)
        self.taken += bytes(data[:count])
        self.room -= count
        return count

    def tell_credit(self, flow: Flow, offset: int) -> None:
        self.credits.append(offset)

    def tell_end(self, flow: Flow, how: Ending) -> None:
        self.ends.append((how, flow.allowance.sent))
        if how == "reset":
            flow.discard()

    def round_trip(self) -> float:
        return 0.001


class Rig:
    def __init__(self) -> None:
        self.peer = HeldPeer()
        self.flow = Flow(self.peer, b"f" * 16, 0, Budget())  # type: ignore[arg-type]
        self.flow.opened = True
        mine, self.app = socket.socketpair()
        for sock in (mine, self.app):
            sock.setblocking(False)
        self.done: list[Flow] = []
        self.pump = Pump(mine, self.flow, lambda: None, self.done.append)
        self.pump.start()

    def arrive(self, data: bytes) -> None:
        self.flow.arrived(data)
        self.pump.handle_readable()

    def end(self, how: Ending) -> None:
        self.flow.far_end(how, self.flow.window.received)
        self.pump.handle_readable()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (a condition of sockets, which no event announces)
            await asyncio.sleep(0.001)


def on_loop(test: Callable[[Rig], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            rig = Rig()
            try:
                await test(rig)
            finally:
                rig.app.close()
                rig.pump.abandon()

        uvloop.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__  # type: ignore[attr-defined]
    return run


@on_loop
async def test_what_the_app_writes_goes_out_and_its_end_after_it(rig: Rig) -> None:
    rig.app.send(b"hello")
    rig.app.shutdown(socket.SHUT_WR)
    await until(lambda: bool(rig.peer.ends))
    assert rig.peer.taken == b"hello" and rig.peer.ends == [("end", 5)]
    assert not rig.done, "half-closed only"
    rig.arrive(b"still there")
    await until(lambda: rig.app.recv(100) == b"still there")
    rig.end("end")
    await until(lambda: bool(rig.done))


@on_loop
async def test_credit_that_is_used_up_stops_the_reading_until_more_comes(rig: Rig) -> None:
    loop = asyncio.get_running_loop()
    sent = bytes(range(256)) * 4096
    writer = asyncio.create_task(loop.sock_sendall(rig.app, sent))
    await until(lambda: len(rig.peer.taken) == INITIAL_WINDOW)
    assert not writer.done()
    while len(rig.peer.taken) < len(sent):
        limit = rig.flow.allowance.limit + 100_000
        rig.flow.allowance.raise_to(limit)
        rig.pump.handle_writable()
        expected = min(limit, len(sent))
        await until(lambda expected=expected: len(rig.peer.taken) == expected)  # type: ignore[misc]
    await writer
    assert bytes(rig.peer.taken) == sent


@on_loop
async def test_an_app_that_does_not_read_gets_no_credit_returned(rig: Rig) -> None:
    for _ in range(INITIAL_WINDOW // 65536):
        rig.arrive(b"x" * 65536)
    before = rig.flow.window.taken
    assert before < INITIAL_WINDOW
    got = bytearray()
    while len(got) < INITIAL_WINDOW:
        await until(lambda: True)
        try:
            got += rig.app.recv(65536)
        except BlockingIOError:
            await asyncio.sleep(0.001)
    assert rig.flow.window.taken == INITIAL_WINDOW and rig.peer.credits


@on_loop
async def test_a_reset_from_afar_comes_behind_the_data(rig: Rig) -> None:
    rig.flow.arrived(b"last words")
    rig.end("reset")
    await until(lambda: bool(rig.done))
    assert rig.app.recv(100) == b"last words"
    assert rig.flow.wrote == "reset"


@pytest.mark.parametrize("ends_first", [False, True])
def test_a_reset_by_the_app_is_told(unused_tcp_port: int, ends_first: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", unused_tcp_port))
        app = socket.create_connection(("127.0.0.1", unused_tcp_port))
        mine, _ = listener.accept()
        mine.setblocking(False)
        rig = HeldPeer()
        flow = Flow(rig, b"f" * 16, 0, Budget())  # type: ignore[arg-type]
        flow.opened = True
        done: list[Flow] = []
        pump = Pump(mine, flow, lambda: None, done.append)
        pump.start()
        if ends_first:
            app.shutdown(socket.SHUT_WR)
            await until(lambda: bool(rig.ends))
        app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        app.close()
        await until(lambda: bool(done))
        assert rig.ends == [("end", 0)] * ends_first + [("reset", 0)]
        listener.close()
        assert loop.is_running()

    uvloop.run(main())


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
