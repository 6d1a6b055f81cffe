"""A circuit socket: its slot's binding, and the peer connections whose circuits lead through it.

A GRO buffer may hold segments of several circuits and of circuit control: the engine of the first one takes its own and
hands the others' spans back, which go through the same door again (protocol.md, section 1).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from warren.fabric.aio.drive import Drive
from warren.fabric.aio.udp import UdpSocket
from warren.fabric.core import frames
from warren.fabric.core.engine import Address, Batch, Buffer, Connection, PathChange
from warren.fabric.core.peer import PeerEvent
from warren.fabric.core.slot import Slot, SlotBound, Verify

RUNS = 64
"""Runs of one header that are looked at in one buffer: as many as the kernel joins segments; the rest is dropped."""


class PeerCore(Protocol):
    """AgentPeer or ConnectorPeer."""

    connection: Connection

    def handle_connection(self, now: float) -> None: ...

    def poll_event(self) -> PeerEvent | None: ...

    def poll_timeout(self) -> float | None: ...

    def handle_timeout(self, now: float) -> None: ...


Expect = Callable[[bytes], "PeerPath | None"]
"""Given the first packet of a circuit (its header taken off): the path that it makes, or None."""


class CircuitSocket:
    """One UDP socket towards one switch. `verify`: the switch may be another process by now (slot.Verify)."""

    def __init__(
        self,
        index: int,
        bind: Address,
        switch: Address,
        verify: Callable[[], None],
        mark: int = 0,
        *,
        listens: bool = False,
    ) -> None:
        self.index = index
        self.switch = switch
        self.slot: Slot | None = None
        self.dropped: Counter[str] = Counter()
        self.verify = verify
        self._listens = listens
        self._loop = asyncio.get_running_loop()
        self._udp = UdpSocket(self, bind, mark=mark)
        self._paths: dict[bytes, PeerPath] = {}
        self._expected: dict[bytes, Expect] = {}
        self._touched: dict[PeerPath, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flight: float | None = None

    # ---- slot ----

    def given(self, slot_id: bytes, key: bytes) -> bool:
        """The switch gave this socket a slot. Whether it is another one than before: then the circuits of before are
        not known there any more, and their peer connections need others."""
        now = self._loop.time()
        fresh = self.slot is None or self.slot.id != slot_id or self.slot.key != key
        if self.slot is None or fresh:
            self.slot = Slot(self.index, slot_id, key, now, listens=self._listens)
        else:
            self.slot.attachment(True, now)
        self.slot.circuits(len(self._paths))
        self._settle_slot()
        return fresh and bool(self._paths)

    def attachment_lost(self) -> None:
        if self.slot is not None:
            self.slot.attachment(False, self._loop.time())
            self._settle_slot()

    def suspect(self) -> None:
        """The other end says that large packets vanish."""
        if self.slot is not None:
            self.slot.suspect(self._loop.time())
            self._settle_slot()

    def _settle_slot(self) -> None:
        """Drain the slot's outputs, re-arm its timer."""
        slot = self.slot
        if slot is None:
            return
        while (packet := slot.poll_transmit()) is not None:
            self._udp.send_one(packet, self.switch)
        while (event := slot.poll_event()) is not None:
            match event:
                case SlotBound(change, _, _) if change is not None:
                    for path in list(self._paths.values()):
                        path.changed(change)
                case Verify():
                    self.verify()
        self._arm()

    def _arm(self) -> None:
        """The timer as the slot wants it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.slot.poll_timeout() if self.slot is not None else None
        if due is not None:
            self._timer = self._loop.call_at(due[0], self._slot_due)

    def _slot_due(self) -> None:
        self._timer = None
        if self.slot is not None:
            self.slot.handle_timeout(self._loop.time())
            self._settle_slot()

    # ---- packets ----

    def handle_buffer(self, buffer: Buffer, stride: int, address: Address, tos: int) -> None:
        if address != self.switch:
            self.dropped["not_the_switch"] += 1
            return
        spans, runs = [(0, len(buffer))], 0
        view = memoryview(buffer)
        while spans and runs < RUNS:
            start, end = spans.pop()
            runs += 1
            whole = start == 0 and end == len(buffer)
            spans.extend((start + a, start + b) for a, b in self._run(buffer if whole else view[start:end], stride))
        if spans:
            self.dropped["too_many_runs"] += len(spans)

    def _run(self, buffer: Buffer, stride: int) -> list[tuple[int, int]]:
        """Gives the buffer to whom its first header names; the spans of others."""
        header = bytes(buffer[: frames.HEADER])
        path = self._paths.get(header)
        if path is None and header in self._expected:
            path = self._first(header, bytes(buffer[frames.HEADER : stride or len(buffer)]))
        if path is not None:
            self._touched[path] = None
            return list(path.receive(buffer, stride))
        end = stride if 0 < stride < len(buffer) else len(buffer)
        named = bytes(buffer[1 : frames.HEADER])
        if buffer[0] != frames.CONTROL:
            self.dropped["unknown_circuit"] += 1
        elif self.slot is None or not (named == self.slot.id or frames.header(named) in self._paths):
            self.dropped["unknown_slot"] += 1
        else:
            self.slot.handle_control(buffer[:end], self._loop.time())
        return [(end, len(buffer))] if end < len(buffer) else []

    def handle_received(self) -> None:
        touched, self._touched = self._touched, {}
        for path in touched:
            path.flush()
        self._settle_slot()

    def handle_writable(self) -> None:
        for path in list(self._paths.values()):
            path.flush()

    def send(self, batch: Batch) -> bool:
        return self._udp.send(batch, self.switch)

    # ---- paths ----

    def add(self, path: PeerPath) -> None:
        self._paths[path.header] = path
        if self.slot is not None:
            self.slot.circuits(len(self._paths))

    def remove(self, path: PeerPath) -> None:
        self._paths.pop(path.header, None)
        self._touched.pop(path, None)
        if self.slot is not None:
            self.slot.circuits(len(self._paths))

    def path(self, circuit: bytes) -> PeerPath | None:
        return self._paths.get(frames.header(circuit))

    def expect(self, circuit: bytes, first: Expect) -> None:
        """An offered circuit: `first` is called with its first packet, and again until it makes a path."""
        self._expected[frames.header(circuit)] = first

    def unexpect(self, circuit: bytes) -> None:
        self._expected.pop(frames.header(circuit), None)

    def _first(self, header: bytes, packet: bytes) -> PeerPath | None:
        path = self._expected[header](packet)
        if path is not None:
            del self._expected[header]
        return path

    def report(self) -> None:
        """Tells the slot what its connections have in flight."""
        if self.slot is None or not self._paths:
            return
        flights = [path.flight for path in self._paths.values() if path.flight is not None]
        pto = max(path.drive.connection.pto() for path in self._paths.values())
        since = min(flights) if flights else None
        self.slot.flight(pto, since)
        if since is not None and since != self._flight:
            self._arm()  # what is in flight from now on may meet silence, long before anything else is due
        self._flight = since

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._udp.close()


class PeerPath:
    """One peer connection on the circuit that leads."""

    def __init__(
        self, socket: CircuitSocket, circuit: bytes, size: int, peer: PeerCore, handle: Callable[[PeerEvent], Any]
    ) -> None:
        """`handle`: called with every event of the peer connection."""
        self.socket = socket
        self.circuit = circuit
        self.header = frames.header(circuit)
        self.peer = peer
        self.flight: float | None = None
        """Since when something is unacknowledged."""
        self.heard = 0.0
        """When something authenticated came last, by the loop's clock."""
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self.drive = Drive(
            peer.connection, self.header, self._drain, self._send, peer.poll_timeout, peer.handle_timeout
        )
        peer.connection.resize(size)
        socket.add(self)

    def receive(self, buffer: Buffer, stride: int) -> list[tuple[int, int]]:
        received = self.drive.receive(buffer, stride)
        if received.authenticated:
            self.heard = self._loop.time()
        if received.authenticated and self.socket.slot is not None:
            packets = -(-len(buffer) // stride) if stride else 1
            self.socket.slot.authenticated(self._loop.time(), packets)
        return list(received.foreign)

    def flush(self) -> None:
        if self.drive.closed:
            return
        self.drive.flush()
        if not self.drive.connection.in_flight():
            self.flight = None
        elif self.flight is None:
            self.flight = self._loop.time()
        self.socket.report()

    def changed(self, kind: PathChange) -> None:
        self.drive.connection.path_changed(self._loop.time(), kind)
        self.flush()

    def resize(self, size: int) -> None:
        self.drive.connection.resize(size)
        self.flush()

    def move(self, socket: CircuitSocket, circuit: bytes, size: int) -> None:
        """The connection goes on over another circuit."""
        self.socket.remove(self)
        self.socket, self.circuit, self.header = socket, circuit, frames.header(circuit)
        self.drive.header = self.header
        self.drive.connection.resize(size)
        socket.add(self)
        self.changed(PathChange.MOVED)

    def close(self) -> None:
        """Leaves the socket; what the connection had to say was flushed before."""
        self.drive.close()
        self.socket.remove(self)

    def _drain(self, now: float) -> bool:
        self.peer.handle_connection(now)
        busy = False
        while (event := self.peer.poll_event()) is not None:
            busy = True
            self._handle(event)
        return busy

    def _send(self, batch: Batch) -> bool:
        if self.socket.slot is not None:
            self.socket.slot.sent(self._loop.time())
        return self.socket.send(batch)
