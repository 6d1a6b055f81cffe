"""The QUIC engines alone, in memory: no sockets, a virtual clock, each side's processor time apart.

    python -m tests.bench.engines [ENGINE]        (one engine: JSON; without: all that are installed, a table)

One stream (send and receive per core), datagrams of 1,200 bytes, handshakes, the memory of idle connections; through
the face that the daemons use, with an 8-byte header on every packet. Only ratios within one run mean anything.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

from tests.bench import library
from tests.bench.figures import NONE, table, written
from tests.certificates import SERVER_NAME, Shown, certificates
from warren.fabric.core.engine import ClientConfig, Connection, Limits, Readable, ServerConfig
from warren.fabric.core.errors import ConfigError
from warren.fabric.engines import EngineName, engine

LIBRARY = "aioquic, bare library"
NAMES: tuple[EngineName, ...] = tuple(name for name in get_args(EngineName) if name != "auto")
SIZE = 1444
HEADER = b"\x01CIRCUIT"
BLOB = bytes(65_536)
STREAM_BYTES = {"native": 400 << 20, "aioquic": 24 << 20}
DATAGRAMS = {"native": 150_000, "aioquic": 12_000}
PAYLOAD = bytes(1200)
HANDSHAKES = {"native": 400, "aioquic": 150}
IDLE = 150
"""Connections whose memory is counted."""
SETTLES, SOON = 200, 0.5
"""Turns of a handshake at most; seconds without anything after which it is over."""
ROUNDS = 2
ONE_WAY = 0.000_25
"""Seconds that the virtual clock moves with each turn: a round trip of nothing is no path that a controller knows."""
A_PACKET = 1e-6
"""Seconds that the virtual clock moves with each packet: 11 Gbit/s."""
TAKES_AT_MOST = 300.0
spent_so_far = time.process_time
"""Processor time: what others do on the machine does not count."""


class Pair:
    """Client and server with nothing between them; `spent`: processor seconds of each."""

    def __init__(self, name: EngineName, shown: Shown, limits: Limits) -> None:
        self.now = 1.0
        self.spent = [0.0, 0.0]
        self.got = self.datagrams = self.packets = 0
        quic = engine(name)
        began = spent_so_far()
        self.client = quic.connect(ClientConfig("x", SERVER_NAME, shown.root, limits), self.now)
        first = self.client.transmit(self.now)
        self.spent[0] += spent_so_far() - began
        assert first is not None
        start = b"".join(first.parts)[: first.stride]
        began = spent_so_far()
        server = quic.accept(ServerConfig(("x",), shown.chain, shown.key, limits), start, self.now)
        assert server is not None
        self.server = server
        self.server.receive(b"".join(first.parts), first.stride if first.segments > 1 else 0, b"", self.now)
        self.spent[1] += spent_so_far() - began

    def turn(self) -> bool:
        """Both say all that they have to say, once; whether anything was said."""
        said = self._side(self.client, self.server, 0, 1)
        self.now += ONE_WAY
        said = self._side(self.server, self.client, 1, 0) or said
        self.now += ONE_WAY
        return said

    def _side(self, sender: Connection, receiver: Connection, one: int, other: int) -> bool:
        said = False
        while True:
            began = spent_so_far()
            batch = sender.transmit(self.now, HEADER)
            self.spent[one] += spent_so_far() - began
            if batch is None:
                return said
            said = True
            self.packets += batch.segments
            self.now += A_PACKET * batch.segments
            buffer = b"".join(batch.parts)
            began = spent_so_far()
            receiver.receive(buffer, batch.stride if batch.segments > 1 else 0, HEADER, self.now)
            self._take(receiver)
            self.spent[other] += spent_so_far() - began

    def _take(self, receiver: Connection) -> None:
        while (event := receiver.poll_event()) is not None:
            if isinstance(event, Readable):
                while data := receiver.read(event.stream, 1 << 20):
                    self.got += len(data)
        while receiver.read_datagram() is not None:
            self.datagrams += 1

    def wait(self) -> None:
        """The clock moves to the next timer, which is handled."""
        self.now = max(self.now + A_PACKET, self._due())
        for number, side in enumerate((self.client, self.server)):
            at = side.timer()
            if at is not None and at <= self.now:
                began = spent_so_far()
                side.handle_timer(self.now)
                self._take(side)
                self.spent[number] += spent_so_far() - began

    def _due(self) -> float:
        return min((at for side in (self.client, self.server) if (at := side.timer()) is not None), default=self.now)

    def settle(self) -> None:
        """Until nothing is due soon: the handshake is over, and what follows it."""
        for _ in range(SETTLES):
            if not self.turn():
                if self._due() > self.now + SOON:
                    return
                self.wait()

    def forget(self) -> None:
        self.spent, self.got, self.datagrams, self.packets = [0.0, 0.0], 0, 0, 0


class Cost(NamedTuple):
    """Gbit or datagrams for each processor second of the sender and of the receiver."""

    send: float
    receive: float


def stream(name: EngineName, shown: Shown) -> Cost:
    total = STREAM_BYTES[name]
    pair = Pair(name, shown, Limits(size=SIZE))
    pair.settle()
    pair.forget()
    opened = pair.client.open_stream()
    assert opened is not None
    sent = 0
    while pair.got < total:
        began = spent_so_far()
        while sent < total and (taken := pair.client.write(opened, BLOB)):
            sent += taken
        pair.spent[0] += spent_so_far() - began
        if not pair.turn():
            pair.wait()
    return Cost(*(pair.got * 8e-9 / side for side in pair.spent))


def datagrams(name: EngineName, shown: Shown) -> Cost:
    """A second, each side; some may be lost in no queue of ours: what has arrived counts."""
    pair = Pair(name, shown, Limits(size=SIZE, datagrams=True))
    pair.settle()
    pair.forget()
    sent = 0
    while sent < DATAGRAMS[name]:
        began = spent_so_far()
        while sent < DATAGRAMS[name] and pair.client.send_datagram(PAYLOAD):
            sent += 1
        pair.spent[0] += spent_so_far() - began
        if not pair.turn():
            pair.wait()
    return Cost(*(pair.datagrams / side for side in pair.spent))


def handshakes(name: EngineName, shown: Shown) -> Cost:
    """A second, each side."""
    spent = [0.0, 0.0]
    for _ in range(HANDSHAKES[name]):
        pair = Pair(name, shown, Limits(size=SIZE))
        pair.settle()
        spent = [spent[0] + pair.spent[0], spent[1] + pair.spent[1]]
    return Cost(*(HANDSHAKES[name] / side for side in spent))


def idle(name: EngineName, shown: Shown) -> float:
    """KiB of an idle connection, both of its ends together."""
    kept = [made(name, shown) for _ in range(20)]
    gc.collect()
    before = resident()
    kept += [made(name, shown) for _ in range(IDLE)]
    gc.collect()
    grown = (resident() - before) / 1024 / IDLE
    del kept
    return grown


def made(name: EngineName, shown: Shown) -> Pair:
    pair = Pair(name, shown, Limits(size=SIZE))
    pair.settle()
    return pair


def resident() -> int:
    """Bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def best(run: Callable[[], Cost]) -> Cost:
    """The best of the rounds, each side by itself."""
    costs = [run() for _ in range(ROUNDS)]
    return Cost(max(cost.send for cost in costs), max(cost.receive for cost in costs))


def measure_here(name: EngineName) -> dict[str, Any]:
    """One engine, in this process."""
    shown = certificates()
    memory = idle(name, shown)  # first: while nothing is left by others
    return {
        "name": name,
        "missing": None,
        "stream": best(lambda: stream(name, shown))._asdict(),
        "datagrams": best(lambda: datagrams(name, shown))._asdict(),
        "handshakes": handshakes(name, shown)._asdict(),
        "idle_kib": memory,
    }


def measure(name: EngineName) -> dict[str, Any]:
    """One engine, in a process of its own, so that its memory is its own."""
    try:
        engine(name)
    except ConfigError as error:
        return {"name": name, "missing": str(error)}
    words = [sys.executable, "-m", "tests.bench.engines", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TAKES_AT_MOST)
    if done.returncode != 0:
        return {"name": name, "missing": done.stderr.strip().splitlines()[-1]}
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def bare() -> Cost:
    """One stream of aioquic as it comes: Gbit for each processor second of the sender and of the receiver."""
    cost = library.bare(STREAM_BYTES["aioquic"])
    return Cost(cost.delivered * 8e-9 / cost.sender, cost.delivered * 8e-9 / cost.receiver)


def bare_library() -> dict[str, Any]:
    """aioquic as it comes, for what the face and its header cost."""
    costs = [bare() for _ in range(ROUNDS)]
    speed = {"send": max(cost.send for cost in costs), "receive": max(cost.receive for cost in costs)}
    return {"name": LIBRARY, "missing": None, "stream": speed}


def rows(said: list[dict[str, Any]]) -> str:
    """The table of engines."""
    head = [
        "engine",
        "stream, send / receive: Gbit/s a core",
        "datagrams of 1,200 bytes, send / receive: thousands a second and core",
        "handshakes, client / server: a second and core",
        "idle connection, both ends",
    ]
    lines = []
    for one in said:
        if one["missing"]:
            lines.append([one["name"], one["missing"], "", "", ""])
            continue
        pairs = [
            " / ".join(written(one[kind][side] * scale, digits) for side in ("send", "receive"))
            if kind in one
            else NONE
            for kind, scale, digits in (("stream", 1, 2), ("datagrams", 1e-3, 0), ("handshakes", 1, 0))
        ]
        lines.append([one["name"], *pairs, written(one.get("idle_kib"), 0, " KiB")])
    return table(head, lines)


def main(names: list[str]) -> None:
    if names:
        print(json.dumps(measure_here(NAMES[NAMES.index(names[0])])))
    else:
        print(rows([*(measure(name) for name in NAMES), bare_library()]))


if __name__ == "__main__":
    main(sys.argv[1:])
