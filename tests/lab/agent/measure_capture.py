"""Throughput of the capture on one stream each way, to and from a sink in the same event loop. Run as root:

python -m tests.lab.agent.measure_capture [SECONDS]
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
import time
from pathlib import Path

import uvloop

from tests.lab.agent.test_capture import CONFIG, ORIGIN, add_routes
from tests.lab.agent.throwaway import enter_namespaces
from warren.agent.capture.capture import Capture
from warren.agent.capture.headers import FlowKey

UP, DOWN = 9, 19


class Sink:
    """Reads (port 9) or writes (port 19) as fast as the socket goes, by readiness, without tasks."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.buffer = bytearray(1 << 20)

    def syn(self, key: FlowKey) -> None:
        self.capture.release(key)

    def cancelled(self, key: FlowKey) -> None: ...

    def datagram(self, key: FlowKey, payload: memoryview) -> None: ...

    def accepted(self, key: FlowKey, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if key.destination_port == UP:
            loop.add_reader(sock, self._read, key, sock)
        else:
            loop.add_writer(sock, self._write, key, sock)

    def _read(self, key: FlowKey, sock: socket.socket) -> None:
        try:
            if not sock.recv_into(self.buffer):
                self._end(key, sock)
        except BlockingIOError:
            return
        except ConnectionError:
            self._end(key, sock)

    def _write(self, key: FlowKey, sock: socket.socket) -> None:
        try:
            sock.send(self.buffer)
        except BlockingIOError:
            return
        except ConnectionError:
            self._end(key, sock)

    def _end(self, key: FlowKey, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.remove_writer(sock)
        sock.close()
        self.capture.forget(key)


def app(port: int, seconds: float) -> float:
    sock = socket.create_connection((ORIGIN, port))
    block, total, began = bytearray(1 << 20), 0, time.monotonic()
    while time.monotonic() - began < seconds:
        total += sock.send(block) if port == UP else sock.recv_into(block)
    took = time.monotonic() - began
    sock.close()
    return total * 8e-9 / took


def sent() -> tuple[int, int]:
    """Packets and bytes that the host has put into the TUN."""
    statistics = Path("/proc/net/dev").read_text()
    fields = next(line for line in statistics.splitlines() if CONFIG.name in line).split(":")[1].split()
    return int(fields[9]), int(fields[8])


async def serve(capture: Capture, reader: int) -> None:
    capture.start(Sink(capture))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(reader, ended.set)
    await ended.wait()
    print("counters", dict(capture.counters), "flows", capture.flows)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    enter_namespaces()
    capture = Capture.open(CONFIG)
    add_routes()
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        for port, way in ((UP, "up"), (DOWN, "down")):
            before = sent()
            rate = app(port, seconds)
            packets, size = (after - earlier for after, earlier in zip(sent(), before, strict=True))
            print(f"{way}: {rate:.1f} Gbit/s, packets to the agent {size // packets} bytes on average", flush=True)
        os._exit(0)
    os.close(writer)
    uvloop.run(serve(capture, reader))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"processor of the capture and its sink: {used.ru_utime:.1f} s user, {used.ru_stime:.1f} s kernel")


if __name__ == "__main__":
    main()
