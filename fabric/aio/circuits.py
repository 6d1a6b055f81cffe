"""A circuit socket: its slot's binding, and the ways of peer connections (peer_path.py) that lead through it.

A GRO buffer may hold segments of several circuits and of circuit control: the engine of the first one takes its own and
hands the others' spans back, which go through the same door again (protocol.md, section 1).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from warren.fabric.aio.lookup import any_address
from warren.fabric.aio.timer import Timer
from warren.fabric.aio.udp import UdpSocket
from warren.fabric.core import frames
from warren.fabric.core.engine import Address, Batch, Buffer, PathChange
from warren.fabric.core.paths import believed_pto
from warren.fabric.core.slot import Slot, SlotBound, Verify

if TYPE_CHECKING:
    from warren.fabric.aio.peer_path import PeerPath

LOOK_EVERY = 0.005
"""Seconds after traffic until the slot is told of it and its timers are looked at: none of them is finer."""
BLACK_HOLE = 6
"""Large packets lost with none acknowledged since: the path takes less than it did."""
QUIET = 1.0
"""Seconds without anything from the switch, after which what comes is news: the way works."""
RUNS = 64
"""Runs of one header that are looked at in one buffer: as many as the kernel joins segments; the rest is dropped."""


Expect = Callable[[bytes], "PeerPath | None"]
"""Given the first packet of a circuit (its header taken off): the path that it makes, or None."""


class Keeper(Protocol):
    """Whose socket it is: the node, whose attachment goes to the same switch."""

    def doubt(self) -> None:
        """The switch may be another process by now (slot.Verify)."""

    def moved(self) -> None:
        """The switch has a new address of this socket."""

    def swallows(self, circuit: bytes) -> None:
        """Large packets vanish on a circuit, which its other end should hear of, too."""

    def back(self) -> None:
        """Something came from the switch after a while without."""


class CircuitSocket:
    """One UDP socket towards one switch. `listens`: its owner is offered circuits."""

    def __init__(self, index: int, switch: Address, keeper: Keeper, mark: int = 0, *, listens: bool = False) -> None:
        self.index = index
        self.switch = switch
        self.slot: Slot | None = None
        self.dropped: Counter[str] = Counter()
        self.keeper = keeper
        self._mark = mark
        self.heard = 0.0
        """When anything came last, by the loop's clock."""
        self._listens = listens
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._udp = UdpSocket(self, any_address(switch), mark=mark)
        self._paths: dict[bytes, PeerPath] = {}
        self._expected: dict[bytes, Expect] = {}
        self._touched: dict[PeerPath, None] = {}
        self._timer = Timer(self._slot_deadline, self._slot_due)
        self._looking: asyncio.TimerHandle | None = None
        self._controlled = False

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

    def move(self, switch: Address) -> None:
        """This host's way to the switch has changed, or that is reached at another address now: slot and circuits stay.
        Raises ConfigError."""
        if switch != self.switch:
            self._udp.close()
            self.switch, self._udp = switch, UdpSocket(self, any_address(switch), mark=self._mark)
        if self.slot is not None:
            self.slot.network_changed(self._loop.time())
            self._settle_slot()

    def suspect(self) -> None:
        """Large packets vanish, as the other end says, our engine, or our kernel."""
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
                    if change is not PathChange.RESUMED:
                        self.keeper.moved()
                    for header, path in list(self._paths.items()):
                        path.changed(header, change)
                case Verify():
                    self.keeper.doubt()
        if not self._closed:
            self._timer.arm()

    def _slot_deadline(self) -> float | None:
        due = self.slot.poll_timeout() if self.slot is not None else None
        return due[0] if due is not None else None

    def _slot_due(self, now: float) -> None:
        if self.slot is not None:
            self.slot.handle_timeout(now)
            self._settle_slot()

    # ---- packets ----

    def handle_buffer(self, buffer: Buffer, stride: int, address: Address) -> None:
        if address != self.switch:
            self.dropped["not_the_switch"] += 1
            return
        now = self._loop.time()
        if now - self.heard > QUIET:
            self.keeper.back()
        self.heard = now
        foreign = self._run(buffer, stride)
        if foreign:
            self._others(memoryview(buffer), stride, list(foreign))

    def _others(self, view: memoryview, stride: int, spans: list[tuple[int, int]]) -> None:
        """Spans of a buffer that its first header does not name."""
        runs = 1
        while spans and runs < RUNS:
            start, end = spans.pop()
            runs += 1
            spans.extend((start + a, start + b) for a, b in self._run(view[start:end], stride))
        if spans:
            self.dropped["too_many_runs"] += len(spans)

    def _run(self, buffer: Buffer, stride: int) -> Sequence[tuple[int, int]]:
        """Gives the buffer to whom its first header names; the spans of others."""
        header = bytes(buffer[: frames.HEADER])
        path = self._paths.get(header)
        if path is None and header in self._expected:
            path = self._first(header, bytes(buffer[frames.HEADER : stride or len(buffer)]))
        if path is not None:
            self._touched[path] = None
            return path.receive(header, buffer, stride)
        end = stride if 0 < stride < len(buffer) else len(buffer)
        named = bytes(buffer[1 : frames.HEADER])
        if buffer[0] != frames.CONTROL:
            self.dropped["unknown_circuit"] += 1
        elif self.slot is None or not (named == self.slot.id or frames.header(named) in self._paths):
            self.dropped["unknown_slot"] += 1
        else:
            self.slot.handle_control(buffer[:end], self._loop.time())
            self._controlled = True
        return [(end, len(buffer))] if end < len(buffer) else ()

    def handle_received(self) -> None:
        touched, self._touched = self._touched, {}
        for path in touched:
            path.flush()
        if self._controlled:
            self._controlled = False
            self._settle_slot()

    def handle_writable(self) -> None:
        for path in dict.fromkeys(self._paths.values()):
            path.flush()

    def send(self, batch: Batch) -> bool:
        """False: no room. A socket that was closed, since its edge is another now, drops."""
        if self._closed:
            self.dropped["closed"] += batch.segments
            return True
        too_large = self._udp.too_large
        took = self._udp.send(batch, self.switch)
        if self._udp.too_large > too_large:
            self.suspect()
        return took

    # ---- paths ----

    def add(self, header: bytes, path: PeerPath) -> None:
        self._paths[header] = path
        if self.slot is not None:
            self.slot.circuits(len(self._paths))

    def remove(self, header: bytes) -> None:
        path = self._paths.pop(header, None)
        if path is not None and path not in self._paths.values():
            self._touched.pop(path, None)
        if self.slot is not None:
            self.slot.circuits(len(self._paths))

    @property
    def circuits(self) -> list[bytes]:
        """Ids of those that lead through it."""
        return [header[1:] for header in self._paths]

    def path(self, circuit: bytes) -> PeerPath | None:
        return self._paths.get(frames.header(circuit))

    def expect(self, circuit: bytes, first: Expect) -> None:
        """An offered circuit: `first` is called with its first packet, and again until it makes a path."""
        self._expected[frames.header(circuit)] = first
        if self.slot is not None:
            self.slot.offered(self._loop.time())
            self._settle_slot()

    def unexpect(self, circuit: bytes) -> None:
        self._expected.pop(frames.header(circuit), None)

    def _first(self, header: bytes, packet: bytes) -> PeerPath | None:
        path = self._expected[header](packet)
        if path is not None:
            del self._expected[header]
        return path

    def look_soon(self) -> None:
        """Something was sent or received: the slot's timers may have changed."""
        if self._looking is None and not self._closed:
            self._looking = self._loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._looking = None
        self._report()
        self._settle_slot()

    def _report(self) -> None:
        """Tells the slot what its connections have in flight, those that use it now."""
        if self.slot is None or not self._paths:
            return
        using = [path.flight for header, path in self._paths.items() if path.uses(header)]
        flights = [flight for flight in using if flight is not None]
        pto = max(believed_pto(path.drive.connection) for path in self._paths.values())
        self.slot.flight(pto, min(flights) if flights else None)
        for header, path in self._paths.items():
            if path.uses(header) and path.drive.connection.large_lost() >= BLACK_HOLE:
                if self.slot.suspect(self._loop.time()):
                    self.keeper.swallows(header[1:])
                break

    def close(self) -> None:
        self._closed = True
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        self._udp.close()
