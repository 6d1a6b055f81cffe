"""Delay, jitter, reordering and duplication on the cards of one network, where the kernel brings none of them.

python -m warren.lab.emulator COUNTERS SETTINGS, where SETTINGS is JSON: {"cards": [[pid, card, tap, name], ...], ...}

1. For each card a TAP device is made in the card's own network namespace. `links.py` has what the card sends forwarded
   into it (nft, at egress), whereby the kernel cuts a batch into packets as they are on a wire.
2. Each packet's fate is drawn: when it goes on, and whether twice.
3. When that time has come it is sent through the card, with a mark that the forwarding rule lets pass.

At the end (SIGTERM) what is held is sent at once. The counters are a small file, for whoever wants to know.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from warren.lab.entering import in_network_of

MARK = 0x1AB
HELD_AT_MOST = 65_536
"""Packets, some 100 MB: 25 ms at 100 Mbit/s are 210 of them, a second at a gigabit is 83,000."""
BATCH = 64  # packets taken from one card before another gets its turn
REORDERED_BY = 0.005
"""Seconds that a reordered packet is late, at least: several packets overtake it at 5 Mbit/s and more."""
LOOK_UP_AFTER = 0.1  # seconds, for a signal
LARGEST = 65_600  # bytes of a frame
UNSENT = 1 << 30
"""Bytes, with what the kernel adds, that may wait in the queue before a limited rate. By itself a socket has 92 packets
there and refuses the rest: 11 ms at 100 Mbit/s, however long the queue is to be."""
SO_SNDBUFFORCE = 32
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
COUNTERS = struct.Struct("=4Q")
"""held, reordered, duplicated, overflowed"""


class Fates:
    """When the packets of one direction go on. `jitter`: seconds; `reorder`, `duplicate`: shares."""

    def __init__(self, delay: float, jitter: float, reorder: float, duplicate: float, seed: str) -> None:
        self._delay, self._jitter, self._reorder, self._duplicate = delay, jitter, reorder, duplicate
        self._draw = Random(seed).random
        self._newest = 0.0
        self.reordered = self.duplicated = 0

    def next(self, now: float) -> tuple[float, int]:
        """The time at which the packet that came at `now` goes on, and how many of it do."""
        late, reordered, duplicated = self._draw(), self._draw(), self._draw()  # three for each, whatever is asked for
        due = now + self._delay + (2 * late - 1) * self._jitter
        if reordered < self._reorder:
            self.reordered += 1
            due = max(due, self._newest) + max(self._jitter, REORDERED_BY)
        else:
            due = self._newest = max(due, self._newest)
        if duplicated < self._duplicate:
            self.duplicated += 1
            return due, 2
        return due, 1


class Direction:
    """One card's packets: in from its TAP, out through the card."""

    def __init__(self, pid: int, card: str, tap: str, fates: Fates) -> None:
        self.fates = fates
        with in_network_of(pid):
            self.taken = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(self.taken, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
            self._card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._card.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        self._card.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, UNSENT)
        self._card.bind((card, 0))
        self._card.setblocking(False)

    def take(self) -> bytes | None:
        try:
            return os.read(self.taken, LARGEST)
        except BlockingIOError:
            return None

    def send(self, packet: bytes) -> bool:
        """Whether there was room. What the queue before a limited rate drops is no fault, and counted there."""
        with suppress(OSError):  # ENOBUFS, or the card is down
            try:
                self._card.send(packet)
            except BlockingIOError:
                return False
        return True


class Emulator:
    def __init__(self, directions: Sequence[Direction], counters: mmap.mmap) -> None:
        self._directions = {direction.taken: direction for direction in directions}
        self._counters = counters
        self._held: list[tuple[float, int, Direction, bytes, int]] = []
        self._number = self._overflowed = 0
        self._over = False

    def run(self) -> None:
        while not self._over:
            readable, _, _ = select.select(list(self._directions), [], [], self._patience())
            for fd in readable:
                self._take(self._directions[fd])
            self._send(time.monotonic())
            self._count()
        self._send(float("inf"))

    def stop(self, *signal_and_frame: object) -> None:
        self._over = True

    def _patience(self) -> float:
        """Seconds to wait for a packet: until one is due; now and then a signal is looked for."""
        due = self._held[0][0] - time.monotonic() if self._held else LOOK_UP_AFTER
        return min(max(due, 0.0), LOOK_UP_AFTER)

    def _take(self, direction: Direction) -> None:
        for _ in range(BATCH):
            packet = direction.take()
            if packet is None:
                return
            if len(self._held) >= HELD_AT_MOST:
                self._overflowed += 1
                continue
            due, copies = direction.fates.next(time.monotonic())
            self._number += 1
            heapq.heappush(self._held, (due, self._number, direction, packet, copies))

    def _send(self, now: float) -> None:
        while self._held and self._held[0][0] <= now:
            _, _, direction, packet, copies = heapq.heappop(self._held)
            for _ in range(copies):
                self._overflowed += not direction.send(packet)

    def _count(self) -> None:
        fates = [direction.fates for direction in self._directions.values()]
        reordered, duplicated = sum(one.reordered for one in fates), sum(one.duplicated for one in fates)
        COUNTERS.pack_into(self._counters, 0, self._number, reordered, duplicated, self._overflowed)


def counted(path: Path) -> tuple[int, ...]:
    """held, reordered, duplicated, overflowed, as an emulator has counted them into its file."""
    data = path.read_bytes()
    return COUNTERS.unpack_from(data) if len(data) >= COUNTERS.size else (0, 0, 0, 0)


def main() -> None:
    path, settings = sys.argv[1], json.loads(sys.argv[2])
    with open(path, "w+b") as file:
        file.truncate(COUNTERS.size)
        counters = mmap.mmap(file.fileno(), COUNTERS.size)
    emulator = Emulator([_direction(settings, *card) for card in settings["cards"]], counters)
    signal.signal(signal.SIGTERM, emulator.stop)
    print("holding packets", flush=True)
    emulator.run()


def _direction(settings: dict[str, Any], pid: int, card: str, tap: str, name: str) -> Direction:
    delay, jitter, reorder, duplicate = (settings[field] for field in ("delay", "jitter", "reorder", "duplicate"))
    return Direction(pid, card, tap, Fates(delay, jitter, reorder, duplicate, f"{settings['seed']} {name}"))


if __name__ == "__main__":
    main()
