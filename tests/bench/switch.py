"""What the switch costs: processor time a batch, and a gigabit, over loopback.

    python tests/bench/switch.py [seconds]

Three processes: a sender of GSO batches, the switch, a sink. `bare` only receives and sends on, without looking at
anything: what Python and the kernel cost by themselves. Only ratios within one run mean anything.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

from warren.edge.switch.circuits import Circuits
from warren.edge.switch.forward import BUFFER, UDP_GRO, UDP_SEGMENT, Forwarder, read_ancillary
from warren.edge.switch.model import Circuit, Limits, Slot
from warren.fabric.core import frames

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
SEGMENT = 1452
CASES = ((44, 1, False), (44, 100, False), (20, 100, False), (10, 100, False), (1, 100, False), (44, 100, True))
"""Segments in a batch, circuits, whether each segment of a batch is of another circuit."""


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
    sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    return sock


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    return pid


def drain(sock: socket.socket) -> None:
    sock.settimeout(1.0)
    try:
        while True:
            sock.recv(BUFFER)
    except TimeoutError:
        pass


def flood(sock: socket.socket, to: tuple[str, int], ids: list[bytes], batch: int, mixed: bool, until: float) -> None:
    sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
    sock.connect(to)
    headers = [frames.header(id) for id in ids]
    payload = bytes(SEGMENT - frames.HEADER)
    batches = []
    for at in range(len(ids)):
        order = [headers[(at + n * mixed) % len(ids)] for n in range(batch)]
        batches.append([part for header in order for part in (header, payload)])
    ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", SEGMENT))] if batch > 1 else []
    count = 0
    while time.time() < until:
        with contextlib.suppress(OSError):
            sock.sendmsg(batches[count % len(batches)], ancillary)
        count += 1


def run(batch: int, circuits: int, mixed: bool, bare: bool, seconds: float) -> None:
    switch, sink, source = udp(), udp(), udp()
    core = Circuits(bytes(16), lambda permit, key: "", os.urandom, time.monotonic())
    limits = Limits(runs_per_second=1e9, runs_burst=1e9)
    ids = [os.urandom(7) for _ in range(circuits)]
    ends = [Slot(b"", b"", 0, b"", None, 0.0, address=s.getsockname()) for s in (source, sink)]
    for id in ids + [os.urandom(7) for _ in range(10_000)]:
        core.table[frames.header(id)] = Circuit(id, ends[0], ends[1], b"", b"", limits, 0.0)
    until = time.time() + seconds
    pids = [
        child(lambda: drain(sink)),
        child(lambda: flood(source, switch.getsockname(), ids, batch, mixed, until)),
    ]
    switch.setblocking(False)
    poll = select.poll()
    poll.register(switch, select.POLLIN)
    forwarder, to = Forwarder(core), sink.getsockname()
    received = buffers = 0
    began = time.process_time()
    while poll.poll(500):
        for _ in range(32):
            try:
                buffer, ancillary, _, address = switch.recvmsg(BUFFER, 128)
            except BlockingIOError:
                break
            stride, tos = read_ancillary(ancillary)
            buffers, received = buffers + 1, received + len(buffer)
            runs = [(to, buffer, stride)] if bare else forwarder.forward(buffer, stride, address, time.monotonic())
            for one in runs:
                forwarder.send(switch, one, tos)
    cost = time.process_time() - began
    for pid in pids:
        os.waitpid(pid, 0)
    name = "bare" if bare else "switch"
    print(
        f"{name:6} batch {batch:2} circuits {circuits:3} mixed {mixed:d}: {received * 8e-9 / seconds:5.2f} Gbit/s, "
        f"{cost / (received * 8e-9):.4f} core·s/Gbit, {cost / buffers * 1e6:5.1f} µs a buffer, "
        f"{received / buffers / SEGMENT:.1f} segments each, dropped {dict(forwarder.dropped)}",
        flush=True,
    )


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    for batch, circuits, mixed in CASES:
        for bare in (True, False):
            run(batch, circuits, mixed, bare, seconds)


if __name__ == "__main__":
    main()
