"""The engines alone, in memory: what each costs a core, side by side.

    python quic/bench/engines.py [--quick] [--json FILE]

Both through the common face (fabric/core/engine.py), no sockets, 1444-byte datagrams with an 8-byte header,
AES-128-GCM, the best of three runs, each engine in a process of its own. Processor time, so that what others do on the
machine counts little; even so only ratios within one run mean anything. Prints a table; `--json` writes the figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.certificates import SERVER_NAME, certificates
from warren.fabric.core.engine import (
    ClientConfig,
    Connection,
    DatagramsReceived,
    Engine,
    Limits,
    Readable,
    ServerConfig,
)

SIZE = 1444
HEADER = b"\x01CIRCUIT"
BLOB = bytes(65_536)
PAYLOAD = bytes(1200)
RUNS = 3
ENGINES = ("native", "native, CUBIC", "aioquic")
ROWS = {
    "send": "one stream, sender: Mbit/s a core",
    "receive": "one stream, receiver: Mbit/s a core",
    "datagrams_out": "DATAGRAM frames of 1200 bytes, sender: a second and core",
    "datagrams_in": "the same, receiver",
    "handshakes_client": "handshakes, client: a second and core",
    "handshakes_server": "handshakes, server: a second and core",
    "idle_bytes": "idle connection: bytes of resident memory",
}
LIMITS = Limits(size=SIZE, datagrams=True, idle_timeout=600.0)


def chosen(name: str) -> Engine:
    """The engine of that name in `ENGINES`."""
    if name == "aioquic":
        from warren.fabric.engines.aioquic import AioquicEngine

        return AioquicEngine()
    from warren.fabric.engines.native import NativeEngine

    return NativeEngine("cubic" if "CUBIC" in name else "model")


class Pair:
    """Two ends in one process under a clock of ours, with the processor time of each apart."""

    def __init__(self, engine: Engine, start: float) -> None:
        self.now, self.spent = start, [0.0, 0.0]
        shown = _shown()
        with self.paid(0):
            client = engine.connect(ClientConfig("x", SERVER_NAME, shown.root, LIMITS), self.now)
            first = client.transmit(self.now)
        assert first is not None
        data = b"".join(first.parts)
        with self.paid(1):
            server = engine.accept(ServerConfig(("x",), shown.chain, shown.key, LIMITS), data, self.now)
            assert server is not None
            server.receive(data, first.stride if first.segments > 1 else 0, b"", self.now)
        self.ends: tuple[Connection, Connection] = (client, server)
        self.got = [0, 0]

    @contextmanager
    def paid(self, side: int) -> Iterator[None]:
        """What runs inside is this side's."""
        begun = time.process_time()
        yield
        self.spent[side] += time.process_time() - begun

    def turn(self, side: int) -> None:
        """Everything that a side has to send, and the other takes in and reads."""
        sender, receiver = self.ends[side], self.ends[1 - side]
        while True:
            with self.paid(side):
                due = sender.timer()
                if due is not None and due <= self.now:
                    sender.handle_timer(self.now)
                batch = sender.transmit(self.now, HEADER)
            if batch is None:
                return
            buffer = b"".join(batch.parts)
            with self.paid(1 - side):
                receiver.receive(buffer, batch.stride if batch.segments > 1 else 0, HEADER, self.now)
                self.take(1 - side)

    def take(self, side: int) -> None:
        """Reads what has come."""
        end = self.ends[side]
        while (event := end.poll_event()) is not None:
            if isinstance(event, Readable):
                self.got[side] += len(end.read(event.stream, 1 << 20))
            elif isinstance(event, DatagramsReceived):
                while (datagram := end.read_datagram()) is not None:
                    self.got[side] += len(datagram)

    def exchange(self, rounds: int) -> None:
        """So many times a round trip of a millisecond."""
        for _ in range(rounds):
            self.now += 0.0005
            self.turn(0)
            self.now += 0.0005
            self.turn(1)


def _shown() -> Any:
    global _SHOWN
    if _SHOWN is None:
        _SHOWN = certificates()
    return _SHOWN


_SHOWN: Any = None


def stream(engine: Engine, megabytes: int) -> dict[str, float]:
    """One stream from client to server."""
    pair = Pair(engine, 1.0)
    pair.exchange(50)
    number, total, sent = pair.ends[0].open_stream(), megabytes << 20, 0
    assert number is not None
    pair.spent = [0.0, 0.0]
    while pair.got[1] < total:
        with pair.paid(0):
            while sent < total and (taken := pair.ends[0].write(number, BLOB)):
                sent += taken
        pair.exchange(1)
    bits = pair.got[1] * 8e-6
    return {"send": bits / pair.spent[0], "receive": bits / pair.spent[1]}


def datagrams(engine: Engine, count: int) -> dict[str, float]:
    """DATAGRAM frames from client to server; those that find no room wait for the next millisecond."""
    pair = Pair(engine, 1.0)
    pair.exchange(50)
    pair.spent, wanted = [0.0, 0.0], count * len(PAYLOAD)
    while pair.got[1] < wanted:
        with pair.paid(0):
            for _ in range(40):
                if not pair.ends[0].send_datagram(PAYLOAD):
                    break
        pair.exchange(1)
    many = pair.got[1] / len(PAYLOAD)
    return {"datagrams_out": many / pair.spent[0], "datagrams_in": many / pair.spent[1]}


def handshakes(engine: Engine, count: int) -> dict[str, float]:
    """Full handshakes, one after the other."""
    spent = [0.0, 0.0]
    for _ in range(count):
        pair = Pair(engine, 1.0)
        pair.exchange(8)
        spent = [a + b for a, b in zip(spent, pair.spent, strict=True)]
    return {"handshakes_client": count / spent[0], "handshakes_server": count / spent[1]}


def idle(engine: Engine, count: int) -> dict[str, float]:
    """Connections that have done nothing but connect: what each end keeps."""
    kept = [Pair(engine, 1.0)]
    kept[0].exchange(20)
    before = _resident()
    for _ in range(count):
        pair = Pair(engine, 1.0)
        pair.exchange(20)
        kept.append(pair)
    return {"idle_bytes": (_resident() - before) / (2 * count)}


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(name: str, quick: bool) -> dict[str, float]:
    """All figures of one engine."""
    engine, slow = chosen(name), name == "aioquic"
    less = 10 if quick else 1
    kinds: list[Callable[[], dict[str, float]]] = [
        lambda: stream(engine, max((50 if slow else 500) // less, 2)),
        lambda: datagrams(engine, (20_000 if slow else 100_000) // less),
        lambda: handshakes(engine, 200 // less),
    ]
    figures = idle(engine, 300 // less)
    for _ in range(RUNS):
        for kind in kinds:
            for what, figure in kind().items():
                figures[what] = max(figure, figures.get(what, 0.0))
    return figures


def table(figures: dict[str, dict[str, float]]) -> str:
    """Markdown: a row for each figure, a column for each engine."""
    lines = [f"| engine alone | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    for what, words in ROWS.items():
        lines.append(f"| {words} | {' | '.join(f'{of[what]:,.0f}' for of in figures.values())} |")
    return "\n".join(lines)


def main() -> None:
    """Runs every engine in a process of its own."""
    asked = argparse.ArgumentParser(description="the QUIC engines side by side, in memory")
    asked.add_argument("--quick", action="store_true", help="a tenth of the work: only to see that it runs")
    asked.add_argument("--json", type=Path, help="where to write the figures")
    asked.add_argument("--one", choices=ENGINES, help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(measure(options.one, options.quick)) + "\n")
        return
    figures: dict[str, dict[str, float]] = {}
    for name in ENGINES:
        again = [sys.executable, __file__, "--one", name, *(["--quick"] if options.quick else [])]
        figures[name] = json.loads(subprocess.run(again, check=True, stdout=subprocess.PIPE).stdout)
    sys.stdout.write(table(figures) + "\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
