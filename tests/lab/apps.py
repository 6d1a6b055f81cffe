"""Small programs that stand for apps and origins: sockets of a lab's host, used from the test's own process."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from warren.lab.host import Host

PATIENCE = 30.0
"""Seconds that a socket of a test waits: long, since it only ends tests that have failed."""
CHUNK = 1 << 16
RESET = struct.pack("=ii", 1, 0)
"""SO_LINGER that makes close() a reset."""

Serve = Callable[[socket.socket], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What connect() came to: the name of its errno ("" for connected), and how long that took."""

    error: str
    seconds: float


def connect(host: Host, address: str, port: int, *, retries: int = 0) -> Outcome:
    """`retries`: TCP_SYNCNT, where the host's own setting is not the one to try."""
    with host.network(), socket.socket() as client:
        if retries:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, retries)
        began = time.monotonic()
        number = client.connect_ex((address, port))
        return Outcome(errno.errorcode[number] if number else "", time.monotonic() - began)


def connected(host: Host, address: str, port: int) -> socket.socket:
    with host.network():
        return socket.create_connection((address, port), PATIENCE)


@contextmanager
def origin(host: Host, serve: Serve, port: int = 0) -> Iterator[int]:
    """A server that gives each connection to `serve` in a thread; its port. What `serve` raises, the end raises."""
    failures: list[BaseException] = []
    threads: list[threading.Thread] = []
    with host.network():
        listener = socket.create_server((host.address, port), backlog=128)

    def run(accepted: socket.socket) -> None:
        with accepted:
            accepted.settimeout(PATIENCE)
            try:
                serve(accepted)
            except BaseException as error:
                failures.append(error)

    def accept() -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=run, args=(listener.accept()[0],), daemon=True)
                threads.append(thread)
                thread.start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    if failures:
        raise failures[0]


def read_all(sock: socket.socket) -> bytes:
    """Until the other side's end."""
    parts = []
    while part := sock.recv(CHUNK):
        parts.append(part)
    return b"".join(parts)


def read_until_error(sock: socket.socket) -> tuple[bytes, str]:
    """What came, and the name of the errno that ended it ("" for an end)."""
    parts = []
    try:
        while part := sock.recv(CHUNK):
            parts.append(part)
    except OSError as error:
        return b"".join(parts), errno.errorcode.get(error.errno or 0, type(error).__name__)
    return b"".join(parts), ""


def echo(sock: socket.socket) -> None:
    """Back as it comes; ends when the other side does."""
    while part := sock.recv(CHUNK):
        sock.sendall(part)


def pattern(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def send_and_end(sock: socket.socket, data: bytes) -> threading.Thread:
    """Sends beside the reader, then ends that direction."""

    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
