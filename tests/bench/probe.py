"""What runs on the laptop beside iperf3; prints JSON. Standard library only: hosts run it by its path.

probe.py tcp ADDRESS PORT COUNT             round trips over one TCP connection, one after the other
probe.py udp ADDRESS PORT COUNT RATE        datagrams of 200 bytes, RATE a second, whatever comes back
probe.py connections ADDRESS PORT SECONDS   connect, one byte there and back, close; `WORKERS` at once
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import struct
import sys
import time

SIZE = 200
WORKERS = 16
LAST_WAIT = 1.0
"""Seconds in which the last datagrams may come back."""
PATIENCE = 5.0
PRECISE = 0.0005
"""Seconds before a datagram is due from which it is waited for without sleeping."""


def tcp(address: str, port: int, count: int) -> dict[str, object]:
    samples = []
    with socket.create_connection((address, port), PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(count + count // 10):
            began = time.perf_counter()
            sock.sendall(b"x" * 64)
            got = 0
            while got < 64:
                part = sock.recv(64 - got)
                if not part:
                    raise ConnectionError("the echo server has closed the connection")
                got += len(part)
            if number >= count // 10:  # the first ones warm up
                samples.append(time.perf_counter() - began)
    return told(samples, count)


def udp(address: str, port: int, count: int, rate: int) -> dict[str, object]:
    samples: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        sock.send(struct.pack("=Qd", count, 0.0).ljust(SIZE))  # opens the flow; its answer is not counted
        time.sleep(0.2)
        begun = time.perf_counter()
        sent = 0
        deadline = begun + count / rate + LAST_WAIT
        while (now := time.perf_counter()) < deadline and len(samples) < count:
            due = begun + sent / rate
            if sent < count and now >= due:
                with contextlib.suppress(OSError):
                    sock.send(struct.pack("=Qd", sent, now).ljust(SIZE))
                sent += 1
                continue
            wait = (due if sent < count else deadline) - now - PRECISE
            if poll.poll(max(0, wait * 1000)):
                read(sock, count, samples)
    return told(samples, count)


def read(sock: socket.socket, count: int, samples: list[float]) -> None:
    """Everything that is there."""
    while True:
        try:
            data = sock.recv(2048)
        except BlockingIOError:
            return
        except OSError:
            continue
        number, at = struct.unpack_from("=Qd", data)
        if number < count:
            samples.append(time.perf_counter() - at)


def told(samples: list[float], count: int) -> dict[str, object]:
    """Milliseconds: median and 99th percentile; `lost`: share that never came back."""
    if not samples:
        raise ConnectionError("nothing came back")
    samples.sort()
    p50, p99 = (samples[min(len(samples) - 1, int(len(samples) * share))] * 1e3 for share in (0.5, 0.99))
    return {"p50": p50, "p99": p99, "lost": 1 - len(samples) / count, "count": count}


async def connections(address: str, port: int, seconds: float) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    done = failed = 0
    until = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal done, failed
        while time.perf_counter() < until:
            with socket.socket() as sock:
                sock.setblocking(False)
                try:
                    async with asyncio.timeout(PATIENCE):
                        await loop.sock_connect(sock, (address, port))
                        await loop.sock_sendall(sock, b"x")
                        answered = await loop.sock_recv(sock, 1)
                except (OSError, TimeoutError):
                    answered = b""
                done, failed = done + bool(answered), failed + (not answered)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    return {"per_second": done / (time.perf_counter() - began), "failed": failed}


def main(kind: str, address: str, port: str, *numbers: str) -> None:
    if kind == "tcp":
        said = tcp(address, int(port), int(numbers[0]))
    elif kind == "udp":
        said = udp(address, int(port), int(numbers[0]), int(numbers[1]))
    else:
        said = asyncio.run(connections(address, int(port), float(numbers[0])))
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
