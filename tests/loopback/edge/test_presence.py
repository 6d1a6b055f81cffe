"""Connector processes on TLS: who is taken note of, and what the end of a connection means."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import uvloop

from tests.unit.edge.judge.test_admission import doorkeeper
from tests.unit.fabric.identity.world import OTHER, WORLD
from warren.edge import presence as module
from warren.edge.presence import Presences, listening
from warren.fabric.aio import presence as shown
from warren.fabric.aio.owner import Identity
from warren.fabric.aio.presence import Presence
from warren.fabric.core.engine import ServerConfig
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity import certificates, keys, proof
from warren.fabric.identity.statements import Edge

SHOWN = ServerConfig(("any",), certificates.pem(WORLD.edge_leaf, WORLD.edge_ca), keys.private_pem(WORLD.edge_key))
KEY = keys.public(WORLD.connector_key)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def identity(network: bytes = WORLD.network, statement: bytes = WORLD.statement) -> Identity:
    def sign(label: bytes, challenge: bytes, leaf: bytes) -> bytes:
        return proof.sign(WORLD.connector_key, label, challenge, leaf)

    return Identity("connector", KEY, sign, network, (WORLD.connector_leaf, WORLD.tunnel_ca), statement)


def trusting() -> ssl.SSLContext:
    """Of a client that trusts the network's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificates.pem(WORLD.network).decode())
    return context


@dataclass
class Place:
    edge: Edge
    presences: Presences
    doubts: list[bytes]

    @property
    def address(self) -> tuple[str, int]:
        return self.edge.host, self.edge.port


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    doubts: list[bytes] = []
    found = Place(Edge(WORLD.edge, "127.0.0.1", free_port(), "fra"), Presences(doorkeeper(), doubts.append), doubts)
    async with listening(found.presences, found.address, SHOWN):
        yield found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def run(work: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with place() as here:
            await work(here)

    asyncio.run(main())


def test_the_end_of_a_process_is_a_doubt() -> None:
    async def work(here: Place) -> None:
        connector = Presence(identity(), here.edge)
        connector.start()
        await until(lambda: connector.seen)
        assert len(here.presences) == 1 and not here.doubts
        await connector.close()
        await until(lambda: here.doubts)
        assert here.doubts == [KEY] and len(here.presences) == 0

    run(work)


def test_a_reset_as_boxes_on_the_way_send_it_is_none() -> None:
    async def work(here: Place) -> None:
        connector = Presence(identity(), here.edge)
        reader, writer = await asyncio.open_connection(
            *here.address, ssl=connector._context, server_hostname=here.edge.server_name
        )
        await connector._prove(reader, writer)
        assert len(here.presences) == 1
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await until(lambda: len(here.presences) == 0)
        assert not here.doubts

    run(work)


def test_it_comes_back_after_the_edges_end() -> None:
    async def main() -> None:
        port = free_port()
        connector = Presence(identity(), Edge(WORLD.edge, "127.0.0.1", port, "fra"))
        connector.start()
        for _ in range(2):
            presences = Presences(doorkeeper(), lambda key: None)
            async with listening(presences, ("127.0.0.1", port), SHOWN):
                await until(lambda: connector.seen)
            await until(lambda: not connector.seen)
            assert len(presences) == 0
        await connector.close()

    asyncio.run(main())


def test_it_does_not_wait_when_the_edge_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge that was away for long is back, as its QUIC attachment says: waits have grown, and are over."""
    monkeypatch.setattr(shown, "BACKOFF", (60.0, 60.0))

    async def main() -> None:
        port = free_port()
        connector = Presence(identity(), Edge(WORLD.edge, "127.0.0.1", port, "fra"))
        connector.start()
        await until(lambda: connector._said)
        async with listening(Presences(doorkeeper(), lambda key: None), ("127.0.0.1", port), SHOWN):
            connector.there()
            await until(lambda: connector.seen)
            connector.there()
            assert not connector._at_once.is_set(), "nothing to hurry for"
        await connector.close()

    asyncio.run(main())


def test_an_edge_of_another_network_is_shown_nothing() -> None:
    async def work(here: Place) -> None:
        connector = Presence(identity(network=OTHER.network), here.edge)
        connector.start()
        await until(lambda: connector._said)  # why it is not seen, as it logs it
        assert not connector.seen and "certificate" in connector._said
        await connector.close()
        assert not here.presences.counters["seen"]

    run(work)


def test_a_statement_of_another_network_is_refused() -> None:
    async def work(here: Place) -> None:
        connector = Presence(identity(statement=OTHER.statement), here.edge)
        connector.start()
        await until(lambda: here.presences.counters["refused"])
        assert not connector.seen and not here.doubts
        await connector.close()

    run(work)


@pytest.mark.parametrize(
    "said", [b"", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\x81\xa1", b"GET / "]
)
def test_hostile_bytes_cost_their_sender_the_connection(said: bytes) -> None:
    async def work(here: Place) -> None:
        reader, writer = await asyncio.open_connection(
            *here.address, ssl=trusting(), server_hostname=here.edge.server_name
        )
        writer.write(said)
        writer.write_eof() if writer.can_write_eof() else writer.close()
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            await reader.read()
        await until(lambda: here.presences.counters["refused"])
        assert not here.doubts

    run(work)


async def dial(here: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Plain TCP."""
    return await asyncio.open_connection(*here.address)


def test_who_never_says_a_word_makes_room_for_who_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before TLS as within it: connections are counted from the moment they are accepted."""
    monkeypatch.setattr(module, "UNPROVED", 4)

    async def work(here: Place) -> None:
        quiet = [await dial(here) for _ in range(4)]
        await until(lambda: len(here.presences.unproved) == 4)
        connector = Presence(identity(), here.edge)
        connector.start()
        await until(lambda: connector.seen)
        assert here.presences.counters["too_many"] == 1
        assert await quiet[0][0].read() == b"", "the oldest goes"
        assert len(here.presences.unproved) == 3
        for _, writer in quiet:
            writer.transport.abort()
        await until(lambda: not here.presences.unproved)
        await connector.close()

    run(work)


def test_one_site_does_not_take_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNPROVED_SOURCE", 2)

    async def work(here: Place) -> None:
        quiet = [await dial(here) for _ in range(2)]
        await until(lambda: len(here.presences.unproved) == 2)
        reader, writer = await dial(here)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert here.presences.counters["too_many"] == 1 and len(here.presences.unproved) == 2
        for _, one in [*quiet, (reader, writer)]:
            one.transport.abort()

    run(work)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_one_byte_now_and_then_lasts_as_long_as_a_handshake_may(
    monkeypatch: pytest.MonkeyPatch, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_TIME", 0.5)

    async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
        with suppress(OSError):
            for byte in data:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)

    async def main() -> None:
        async with place() as here:
            before = len(os.listdir("/proc/self/fd"))
            plain = [await dial(here) for _ in range(20)]
            inside = [
                await asyncio.open_connection(*here.address, ssl=trusting(), server_hostname=here.edge.server_name)
                for _ in range(5)
            ]
            slow = [
                *(trickle(writer, b"\x16\x03\x01\x02\x00\x01" + bytes(300)) for _, writer in plain),
                *(trickle(writer, b"\x00\x00\x03" + bytes(300)) for _, writer in inside),
            ]
            tasks = [asyncio.create_task(work) for work in slow]
            for reader, _ in plain:
                with suppress(ConnectionError):
                    await reader.read()
            await until(lambda: not here.presences.unproved)
            assert here.presences.counters["refused"] + here.presences.counters["lost"] == 25
            for task, (_, writer) in zip(tasks, [*plain, *inside], strict=True):
                task.cancel()
                writer.transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)  # uvloop's own

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_garbage_before_tls_ends_itself_only() -> None:
    async def work(here: Place) -> None:
        connector = Presence(identity(), here.edge)
        connector.start()
        await until(lambda: connector.seen)
        dice = random.Random(1)
        hello = ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            trusting().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=here.edge.server_name).do_handshake()
        first = hello.read()
        for number in range(60):
            reader, writer = await dial(here)
            cut = first[: dice.randrange(len(first))]
            writer.write((dice.randbytes(500), b"GET / HTTP/1.1\r\n\r\n", cut, first + dice.randbytes(99))[number % 4])
            writer.write_eof()
            with suppress(ConnectionError):
                await reader.read()
            writer.transport.abort()
        await until(lambda: not here.presences.unproved)
        assert here.presences.counters["lost"] + here.presences.counters["refused"] == 60
        assert connector.seen and len(here.presences) == 1 and not here.doubts
        await connector.close()

    run(work)


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    async def work(here: Place) -> None:
        with pytest.raises(ConfigError, match=f"TCP port {here.edge.port} can't be had"):
            async with listening(replace(here, doubts=[]).presences, here.address, SHOWN):
                pass

    run(work)


@asynccontextmanager
async def breaking(to: tuple[str, int]) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """(port, cut): TCP connections to the port are passed on, until `cut` resets them towards both ends."""
    there: list[asyncio.StreamWriter] = []

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*to)
        there.extend((writer, far_writer))
        with suppress(OSError):
            await asyncio.gather(copied(reader, far_writer), copied(far_reader, writer))

    async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    def cut() -> None:
        for writer in there:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        there.clear()

    server = await asyncio.start_server(passed_on, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], cut
        cut()


def test_a_lost_connection_is_freed_at_once_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a MiB each, in few objects: the interpreter would look for that garbage after thousands of them."""
    monkeypatch.setattr("warren.fabric.aio.presence.BACKOFF", (0.01, 0.01))

    def buffers() -> int:
        return sum(type(one).__name__ == "SSLProtocol" for one in gc.get_objects())

    async def main() -> None:
        async with place() as here, breaking(here.address) as (port, cut):
            connector = Presence(identity(), Edge(WORLD.edge, "127.0.0.1", port, "fra"))
            before = buffers()
            connector.start()
            for count in range(1, 6):
                if count > 1:
                    cut()  # it is back before anybody could see that it was away
                await until(lambda count=count: connector.seen and here.presences.counters["seen"] == count)  # type: ignore[misc]
            await until(lambda: buffers() <= before + 2)
            await connector.close()

    gc.collect()
    gc.disable()
    try:
        uvloop.run(main())
    finally:
        gc.enable()
