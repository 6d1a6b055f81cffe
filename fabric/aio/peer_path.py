"""A peer connection on its circuits: what it sends goes by the socket of the circuit that leads, what comes by any of
them is taken in, and noted once in a wake-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import structlog

from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.aio.drive import Drive
from warren.fabric.core import frames
from warren.fabric.core.engine import Batch, Buffer, Connection, PathChange, Received
from warren.fabric.core.paths import Paths, State, copy_for
from warren.fabric.core.peer import PeerEvent

log = structlog.get_logger()

SILENT = 30.0
"""Seconds without anything that authenticates after which the other end of a peer connection counts as silent: each
asks every 20 s whether the other is there. Flows that rest do not age meanwhile."""


class PeerCore(Protocol):
    """AgentPeer or ConnectorPeer."""

    connection: Connection

    @property
    def waiting(self) -> bool: ...

    def handle_connection(self, now: float) -> None: ...

    def poll_event(self) -> PeerEvent | None: ...

    def poll_timeout(self) -> float | None: ...

    def handle_timeout(self, now: float) -> None: ...


class Way(NamedTuple):
    """A circuit of a peer connection, and the socket that it leads through."""

    socket: CircuitSocket
    circuit: bytes


class PeerPath:
    """One peer connection on its circuits: one leads, the others stand by (fabric/core/paths.py)."""

    def __init__(
        self,
        socket: CircuitSocket,
        circuit: bytes,
        size: int,
        peer: PeerCore,
        handle: Callable[[PeerEvent], Any],
        *,
        agent: bool,
    ) -> None:
        """`handle`: called with every event of the peer connection. `agent`: this is the end that leads."""
        self.peer = peer
        self.heard = asyncio.get_running_loop().time()
        """When something authenticated came last, by the loop's clock."""
        self._silence = 0.0
        """Seconds of all silences together."""
        self._came: dict[bytes, tuple[bool, int]] = {}
        """Headers by which something authenticated has come and was not noted yet: whether newest, and packets."""
        self.away: set[bytes] = set()
        """Circuits whose other end the switch has lost, as far as nothing came by them since."""
        self.silent: set[bytes] = set()
        """Circuits whose switch does not answer, as far as nothing came by them since."""
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        header = frames.header(circuit)
        self._ways = {header: Way(socket, circuit)}
        self._paths = Paths(peer.connection, header, size, self._loop.time(), agent=agent)
        self.drive = Drive(
            peer.connection, header, self._drain, self._send, self._timeout, self._timed_out, lambda: peer.waiting
        )
        socket.add(header, self)

    # ---- the circuit that leads ----

    @property
    def header(self) -> bytes:
        return self._paths.lead

    @property
    def socket(self) -> CircuitSocket:
        return self._ways[self._paths.lead].socket

    @property
    def circuit(self) -> bytes:
        return self._ways[self._paths.lead].circuit

    @property
    def flight(self) -> float | None:
        """Since when something is unacknowledged."""
        return self._paths.flight_since

    # ---- all of them ----

    @property
    def ways(self) -> list[Way]:
        """The leading one first."""
        return [self._ways[header] for header in self._paths.circuits]

    @property
    def counting(self) -> int:
        """How many of them count: nobody has said that the other end is gone there, and the switch answers."""
        return sum(way.circuit not in self.away and way.circuit not in self.silent for way in self._ways.values())

    def uses(self, header: bytes) -> bool:
        """Whether datagrams go there now, or in turn."""
        return header == self._paths.lead or self._paths.state is not State.LEADING

    def through(self, socket: CircuitSocket) -> bytes | None:
        """The circuit through this socket."""
        return next((way.circuit for way in self._ways.values() if way.socket is socket), None)

    def add(self, socket: CircuitSocket, circuit: bytes, size: int) -> bytes | None:
        """A further circuit: it takes the place of the one through the same socket, whose id is returned; else it
        stands by."""
        header, now = frames.header(circuit), self._loop.time()
        before = self.through(socket)
        if before == circuit or not self._paths.add(header, size, now):
            return None
        self._ways[header] = Way(socket, circuit)
        socket.add(header, self)
        if before is not None:
            self._remove(frames.header(before), header)
        self.flush()
        return before

    def remove(self, circuit: bytes) -> bool:
        """A circuit is over. False: it is the last one, and stays."""
        removed = self._remove(frames.header(circuit), None)
        self.flush()
        return removed

    def _remove(self, header: bytes, successor: bytes | None) -> bool:
        if header not in self._ways or not self._paths.remove(header, self._loop.time(), successor):
            return False
        way = self._ways.pop(header)
        self._forgive(way)
        way.socket.remove(header)
        return True

    def _forgive(self, way: Way) -> None:
        self.away.discard(way.circuit)
        self.silent.discard(way.circuit)

    def changed(self, header: bytes, kind: PathChange) -> None:
        self._paths.handle_changed(header, kind, self._loop.time())
        self.flush()

    def resize(self, header: bytes, size: int) -> None:
        self._paths.resize(header, size, self._loop.time())
        self.flush()

    # ---- packets ----

    def receive(self, header: bytes, buffer: Buffer, stride: int) -> Sequence[tuple[int, int]]:
        """Spans of others. What came is noted by the `flush` that follows, once for all buffers of a wake-up."""
        received = self.drive.receive(buffer, stride, header)
        if received.authenticated:
            newest, packets = self._came.get(header, (False, 0))
            packets += -(-len(buffer) // stride) if stride else 1
            self._came[header] = newest or received.newest, packets
        return received.foreign

    def _note(self) -> None:
        """Tells whom it concerns what has come."""
        now, came = self._loop.time(), self._came
        self._came = {}
        if now - self.heard > SILENT:
            self._silence += now - self.heard
        self.heard = now
        for header, (newest, packets) in came.items():
            way = self._ways.get(header)
            if way is not None:
                self._forgive(way)
                self._paths.handle_received(header, Received(True, newest), now)
                if way.socket.slot is not None:
                    way.socket.slot.authenticated(now, packets)

    def awake(self) -> float:
        """Seconds, by a clock that does not count the time in which the other end is silent, whichever of the two
        stands still, or the way between them is dark: idle times of flows are told by it."""
        now = self._loop.time()
        gap = now - self.heard
        return now - self._silence - (gap if gap > SILENT else 0.0)

    def flush(self) -> None:
        if self.drive.closed:
            return
        if self._came:
            self._note()
        self.drive.header = self._paths.lead
        self.drive.flush()
        for way in self._ways.values():
            way.socket.look_soon()

    def close(self) -> None:
        """Leaves the sockets; what the connection had to say was flushed before."""
        self.drive.close()
        for header, way in self._ways.items():
            way.socket.remove(header)

    def _drain(self, now: float) -> bool:
        self.peer.handle_connection(now)
        busy = False
        while (event := self.peer.poll_event()) is not None:
            busy = True
            self._handle(event)
        while (moved := self._paths.poll_event()) is not None:
            self.drive.header = self._paths.lead
            log.info("another circuit leads", silence=round(moved.silence, 3), edge=str(self.socket.switch))
        return busy

    def _send(self, batch: Batch) -> bool:
        """On every circuit that datagrams go on now; whether the first of them took it."""
        self._paths.handle_sent()
        first, *others = self._paths.ways()
        took = self._send_on(first, batch)
        for header in others:
            self._send_on(header, batch)
        return took

    def _send_on(self, header: bytes, batch: Batch) -> bool:
        socket = self._ways[header].socket
        if batch.parts[0][: frames.HEADER] != header:
            batch = copy_for(batch, header)
        if socket.slot is not None:
            socket.slot.sent(self._loop.time())
        return socket.send(batch)

    # ---- time ----

    def _timeout(self) -> float | None:
        self._paths.handle_flight(self._loop.time())
        above, due = self.peer.poll_timeout(), self._paths.poll_timeout()
        if above is None or due is None:
            return above if due is None else due[0]
        return min(above, due[0])

    def _timed_out(self, now: float) -> None:
        above = self.peer.poll_timeout()
        if above is not None and above <= now:
            self.peer.handle_timeout(now)
        self._paths.handle_timeout(now)
