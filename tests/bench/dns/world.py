"""What every server gets: names on a list, names that are cached, an upstream, a certificate, a core of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.loopback.dnsfilter.certificates import make_certificate
from warren.fabric.core import dnswire as wire

IN_TURN: Final = 5000
"""Names asked for again and again; what is asked once comes from the whole list."""
ONCE_MAX: Final = 300_000
UDP, TLS, HTTPS, METRICS, UPSTREAM = 15353, 15354, 15355, 15356, 15357
READY_WITHIN: Final = 180.0
CORES: Final = sorted(os.sched_getaffinity(0))
SERVERS, CLIENTS = CORES[:1], CORES[1:] or CORES


@dataclass(frozen=True, slots=True)
class World:
    """One size of list."""

    directory: Path
    entries: int
    names: dict[str, list[str]]
    """By kind: blocked and cached, in turn; once: blocked, each asked for one time only."""
    fresh: list[str]
    """Names that nobody has asked for yet."""

    def queries(self, kind: str) -> Path:
        """dnsperf's input."""
        return self.directory / f"{kind}.txt"


def listed(number: int) -> str:
    """No two share a piece that an index could be led astray by."""
    digest = hashlib.blake2b(number.to_bytes(4, "big"), digest_size=8).hexdigest()
    return f"{digest[:6]}.{digest[6:]}.example"


def make_world(directory: Path, entries: int) -> World:
    with (directory / "big.txt").open("w") as file:
        file.writelines(f"||{listed(number)}^\n" for number in range(entries))
    make_certificate(directory)
    names = {
        "blocked": [f"x.{listed(n * (entries // IN_TURN or 1) % entries)}" for n in range(IN_TURN)],
        "cached": [f"www{n}.popular.example" for n in range(IN_TURN)],
        "once": [f"y.{listed(n)}" for n in range(min(entries, ONCE_MAX))],
    }
    world = World(directory, entries, names, [f"new{n}.popular.example" for n in range(1000)])
    for kind, chosen in names.items():
        world.queries(kind).write_text("".join(f"{name} A\n" for name in chosen))
    return world


@contextlib.contextmanager
def upstream() -> Iterator[None]:
    """Answers on `UPSTREAM` while the block runs."""
    words = [sys.executable, "-m", "tests.bench.dns.upstream", str(UPSTREAM)]
    process = subprocess.Popen(words)
    try:
        pin(process.pid, CLIENTS)
        wait_until_it_says(process, "example", UPSTREAM, wire.NOERROR)
        yield
    finally:
        process.kill()
        process.wait()


def pin(pid: int, cores: list[int]) -> None:
    """All threads that it has; later ones come from these."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


def ask(udp: socket.socket, number: int, name: str) -> tuple[float, int]:
    """Milliseconds until the answer, and its code. TimeoutError, OSError: there was none."""
    query = wire.build_query(number & 0xFFFF, wire.name_wire(name), wire.A)
    started = time.perf_counter()
    udp.send(query)
    while (said := udp.recv(4096))[:2] != query[:2]:
        pass
    return (time.perf_counter() - started) * 1000, said[3] & 15


def connected(port: int, timeout: float) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(timeout)
    udp.connect(("127.0.0.1", port))
    return udp


def wait_until_it_says(process: subprocess.Popen[bytes], name: str, port: int, rcode: int) -> None:
    """Some answer before their lists are there. RuntimeError if it does not, or has ended."""
    deadline = time.monotonic() + READY_WITHIN
    with connected(port, 0.5) as udp:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if ask(udp, time.monotonic_ns(), name)[1] == rcode:
                    return
            time.sleep(0.02)
    raise RuntimeError("it does not answer")
