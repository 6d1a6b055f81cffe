"""The hot path: batches of circuit packets from one node's address to the other's.

    buffer of one sender (GRO) → header of every segment → runs of one header → owner? → runs to send (GSO)

About 9 µs a batch, whatever its length: nothing here is done once a packet that can be done once a run. `forward`
decides and touches no socket; `send` and `serve` are the shell.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from warren.edge.switch.circuits import Circuits
from warren.fabric.core.engine import Address, Buffer
from warren.fabric.core.frames import CONTROL, DATA, HEADER, NOT_CIRCUIT

RUNS = 16
"""Runs of one header in one buffer; the rest is dropped. Honest senders mix the few circuits that they have in use."""
BATCHES = 32
"""Buffers read before anybody else has a turn."""
BUFFER = 65_535
ANCILLARIES = 4096
"""Combinations of stride and TOS whose ancillary data is kept."""

UDP_SEGMENT, UDP_GRO = 103, 104
_SOL_UDP = socket.IPPROTO_UDP
_ANCILLARY = 128
_SEGMENT = struct.Struct("=H")
_INT = struct.Struct("=i")
_ECN, _CE = 3, 3

Run = tuple[Address, Buffer, int]
"""(to, one or more segments, stride). Zero-copy slices of the buffer."""


class Forwarder:
    """Moves batches between the owners of circuits."""

    def __init__(self, circuits: Circuits) -> None:
        self._circuits = circuits
        self._table = circuits.table
        self._ancillary: dict[tuple[int, int, bool], list[tuple[int, int, bytes]]] = {}
        self.dropped: Counter[str] = Counter()
        """By reason, in runs: foreign (not ours), runs (too many in a buffer), unbound (nobody there yet), rate, full
        (EAGAIN), failed (another error of the socket), old (in buffers: they came while this process stood still)."""

    # ---- deciding ----

    def forward(self, buffer: bytes, stride: int, source: Address, now: float) -> list[Run]:
        """What to send for a buffer whose segments have `stride` bytes (0: one packet). Any bytes are allowed.

        Control packets in it go to the core: drain `Circuits.poll_transmit` and `poll_message` afterwards."""
        header = buffer[:HEADER]
        if 0 < stride < len(buffer):
            if stride <= HEADER:
                self.dropped["foreign"] += 1
                return []
            if not _uniform(buffer, stride):
                return self._split(buffer, stride, source, now)
        circuit = self._table.get(header)
        if circuit is not None:
            if source == circuit.left:
                to = circuit.right
                if to is not None and circuit.left_bucket.take(now):
                    circuit.from_agent += len(buffer)
                    circuit.left_runs += 1
                    return [(to, buffer, stride)]
            elif source == circuit.right:
                to = circuit.left
                if to is not None and circuit.right_bucket.take(now):
                    circuit.from_connector += len(buffer)
                    circuit.right_runs += 1
                    return [(to, buffer, stride)]
            else:
                self._circuits.stray(header, min(stride or len(buffer), len(buffer)), source, now)
                return []
            self.dropped["unbound" if to is None else "rate"] += 1
            return []
        self._other(buffer, stride, source, now)
        return []

    def _split(self, buffer: bytes, stride: int, source: Address, now: float) -> list[Run]:
        """Several headers in one buffer: each run goes where its own header says."""
        view = memoryview(buffer)
        found: list[Run] = []
        start, runs, end = 0, 0, len(buffer)
        while start < end:
            if runs == RUNS:
                self.dropped["runs"] += 1
                break
            runs += 1
            header = buffer[start : start + HEADER]
            stop = start + stride
            while stop < end and buffer[stop : stop + HEADER] == header:
                stop += stride
            found += self._run(view[start:stop], header, stride, source, now)
            start = stop
        return found

    def _run(self, run: memoryview, header: bytes, stride: int, source: Address, now: float) -> list[Run]:
        circuit = self._table.get(header)
        if circuit is None or source not in (circuit.left, circuit.right):
            self._other(bytes(run), stride, source, now)
            return []
        from_left = source == circuit.left
        to = circuit.right if from_left else circuit.left
        if to is None or not (circuit.left_bucket if from_left else circuit.right_bucket).take(now):
            self.dropped["unbound" if to is None else "rate"] += 1
            return []
        if from_left:
            circuit.from_agent += len(run)
            circuit.left_runs += 1
        else:
            circuit.from_connector += len(run)
            circuit.right_runs += 1
        return [(to, run, stride)]

    def _other(self, run: bytes, stride: int, source: Address, now: float) -> None:
        """A run of one header that nobody's circuit owns: control, a stray, or not ours at all."""
        first = run[0] if run else NOT_CIRCUIT
        step = stride or len(run)
        if first == CONTROL:
            for count, start in enumerate(range(0, len(run), step)):
                if count == RUNS:
                    self.dropped["runs"] += 1
                    break
                self._circuits.handle_control(run[start : start + step], source, now)
        elif first == DATA and len(run) > HEADER:
            self._circuits.stray(run[:HEADER], min(step, len(run)), source, now)
        else:
            self.dropped["foreign"] += 1

    # ---- sending ----

    def send(self, sock: socket.socket, run: Run, tos: int = 0) -> None:
        """One run to the socket; what it does not take now is dropped and counted. `tos`: as it was received; a mark
        of ECT is taken off unless it says CE."""
        to, data, stride = run
        if tos & _ECN != _CE:
            tos &= ~_ECN
        segments = stride if len(data) > stride > 0 else 0
        try:
            if segments or tos:
                six = ":" in to[0] and not to[0].startswith("::ffff:")
                sock.sendmsg((data,), self._control(segments, tos, six), 0, to)
            else:
                sock.sendto(data, to)
        except BlockingIOError:
            self.dropped["full"] += 1
        except OSError as error:
            self.dropped["too_large" if error.errno == errno.EMSGSIZE else "failed"] += 1

    def _control(self, stride: int, tos: int, six: bool) -> list[tuple[int, int, bytes]]:
        """The ancillary data for sendmsg; made once for each of the few combinations."""
        found = self._ancillary.get((stride, tos, six))
        if found is None:
            found = [(_SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(stride))] if stride else []
            if tos:
                level, kind = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if six else (socket.IPPROTO_IP, socket.IP_TOS)
                found.append((level, kind, _INT.pack(tos)))
            if len(self._ancillary) < ANCILLARIES:
                self._ancillary[stride, tos, six] = found
        return found

    def flush(self, sock: socket.socket) -> None:
        """Sends the core's control packets."""
        while (packet := self._circuits.poll_transmit()) is not None:
            self.send(sock, (packet[0], packet[1], 0))

    def serve(
        self,
        sock: socket.socket,
        clock: Callable[[], float],
        quic: Callable[[bytes, int, Address, float], None],
        *,
        old: bool = False,
    ) -> bool:
        """Reads up to BATCHES buffers from a readable, non-blocking socket: circuit packets are passed on, all else
        goes to `quic(buffer, stride, source, now)`; then what the core has to answer is sent. `old`: what is read
        waited while this process stood still; circuit packets are dropped, for at both ends they would look like a long
        round trip. Whether there may be more."""
        more = self._read(sock, clock, quic, old)
        self.flush(sock)
        return more

    def _read(
        self,
        sock: socket.socket,
        clock: Callable[[], float],
        quic: Callable[[bytes, int, Address, float], None],
        old: bool,
    ) -> bool:
        for _ in range(BATCHES):
            try:
                buffer, ancillary, _, source = sock.recvmsg(BUFFER, _ANCILLARY)
            except BlockingIOError:
                return False
            except OSError:
                self.dropped["failed"] += 1
                continue
            stride, tos = read_ancillary(ancillary) if ancillary else (0, 0)
            now = clock()
            if not buffer or buffer[0] & NOT_CIRCUIT:
                quic(buffer, stride, source, now)
                continue
            if old:
                self.dropped["old"] += 1
                continue
            for run in self.forward(buffer, stride, source, now):
                self.send(sock, run, tos)
        return True


def read_ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """(stride of a GRO buffer or 0, TOS byte) out of what recvmsg returned beside the data."""
    stride = tos = 0
    for level, kind, value in ancillary:
        if level == _SOL_UDP and kind == UDP_GRO:
            stride = _INT.unpack_from(value)[0]
        elif level == socket.IPPROTO_IP and kind == socket.IP_TOS:
            tos = value[0]
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_TCLASS:
            tos = _INT.unpack_from(value)[0] & 0xFF
    return stride, tos


def _uniform(buffer: bytes, stride: int) -> bool:
    """Whether every segment carries the header of the first."""
    count = -(-len(buffer) // stride)
    if (count - 1) * stride + HEADER > len(buffer):
        return False  # the last one is shorter than a header
    headers = _headers(stride, count)(buffer)
    return headers.count(headers[0]) == count


@lru_cache(maxsize=256)
def _headers(stride: int, count: int) -> Callable[[bytes], tuple[int, ...]]:
    """Takes the headers of so many segments out of a buffer, as integers."""
    return struct.Struct("=" + f"Q{stride - HEADER}x" * (count - 1) + "Q").unpack_from
