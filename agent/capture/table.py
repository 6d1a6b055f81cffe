"""The flow table: 4-tuple → TCP flow, and the SYN that is held until the origin has answered. Pure.

    app's SYN            HELD ──release──▶ RELEASED ──accepted──▶ OPEN ──both FIN, RST, forget──▶ ENDING ──▶ gone
                          │ └─silence──▶ SILENT ──▶ gone
                          └─remove (refused), 64 s without a retransmit──▶ gone

Packets of flows in `passing` are forwarded by the shell without asking here; everything else (SYN, FIN, RST, and all
packets of a flow that is ending) comes through `handle_syn`, `handle_segment` and `handle_origin_segment`.

The owner of a flow is told by events: `FlowSyn` once for every held SYN; after it either the owner ends the flow
(`remove`, `silence`, `forget`) or it gets one `FlowCancelled`.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from dataclasses import dataclass, field

from warren.agent.capture.headers import FIN, RST, WireKey

MAX_FLOWS = 32_768
"""Flows at once. One takes about 0.6 KiB here and two kernel sockets besides: 20 MiB when full."""
MAX_HELD = 4_096
"""SYNs held at once: a scan by an app must not crowd out the flows that are open. 4096 × MAX_SYN_SIZE = 8 MiB."""
MAX_SYN_SIZE = 2_048
"""Bytes of a held SYN with its vnet header. A SYN has no payload to speak of (TCP Fast Open: one segment at most)."""
GIVE_UP_S = 64.0
"""After the last SYN of the app: Linux's waits double (1, 2, … 32 s; then it gives up after another 64), so whoever has
been silent for so long has closed its socket, which sends nothing in SYN_SENT."""
ENDED_LINGER_S = 5.0
"""After both FINs or a RST, since the app's last packet: what is retransmitted then still finds its socket. Both ends
are kernels of this machine, whose retransmission time-out is 0.2 s."""
FORGOTTEN_LINGER_S = 240.0
"""After the owner let go but the app has not ended its side: twice the longest wait between window probes (120 s)."""

_STALE_TIMERS = 1_024  # entries of flows that went: the heap is swept when it holds more than the flows explain


class State(enum.Enum):
    """Where a flow stands; the value is the word for logs."""

    HELD = "held"  # the SYN is kept, the origin is being asked
    SILENT = "silent"  # the origin timed out: so will the app
    RELEASED = "released"  # the SYN is on its way to our own kernel
    OPEN = "open"  # our kernel accepted the connection
    ENDING = "ending"  # both sides ended, one was reset, or the owner let go
    GONE = "gone"


_EDGES = {
    State.HELD: {State.RELEASED, State.SILENT, State.GONE},
    State.SILENT: {State.GONE},
    State.RELEASED: {State.OPEN, State.ENDING, State.GONE},
    State.OPEN: {State.ENDING, State.GONE},
    State.ENDING: {State.GONE},
    State.GONE: set(),
}

_OWNED = {State.HELD, State.RELEASED, State.OPEN}


class Verdict(enum.Enum):
    """What the shell does with a packet of the app's."""

    FORWARD = "forward"  # to the private namespace
    KEEP = "keep"  # nothing: it is held, or a repetition of what is held
    RESET = "reset"  # answer it with a RST: no such flow
    FULL = "full"  # drop it: a bound is reached


@dataclass(frozen=True, slots=True)
class FlowSyn:
    """A new flow; its SYN is held."""

    key: WireKey


@dataclass(frozen=True, slots=True)
class FlowCancelled:
    """The app gave up, or replaced the flow by a new SYN: the owner forgets it."""

    key: WireKey


Event = FlowSyn | FlowCancelled


@dataclass(slots=True)
class _Flow:
    sequence: int
    packet: bytes  # the held SYN, with its vnet header; empty once released
    deadline: float
    state: State = State.HELD
    app_ended: bool = False
    origin_ended: bool = False
    was_reset: bool = False
    armed: float = field(default=math.inf)  # time of the earliest entry in the heap; inf: none


class Table:
    """See the module. All times are seconds of one monotonic clock, passed in as `now`."""

    def __init__(self, max_flows: int = MAX_FLOWS, max_held: int = MAX_HELD) -> None:
        self.passing: set[WireKey] = set()
        self._max_flows = max_flows
        self._max_held = max_held
        self._flows: dict[WireKey, _Flow] = {}
        self._held = 0
        self._timers: list[tuple[float, WireKey]] = []
        self._events: deque[Event] = deque()  # drained by the shell after every input

    def __len__(self) -> int:
        return len(self._flows)

    def state(self, key: WireKey) -> State:
        """Where the flow stands; GONE if there is none."""
        flow = self._flows.get(key)
        return flow.state if flow else State.GONE

    # ── what the app sends ──

    def handle_syn(self, key: WireKey, sequence: int, packet: bytes, now: float) -> Verdict:
        """A SYN without ACK. The same sequence number is a retransmit; another one replaces the flow."""
        flow = self._flows.get(key)
        if flow is not None and flow.sequence == sequence:
            return self._retransmitted(key, flow, now)
        if flow is not None:
            self._cancel(key, flow)
        if self._held >= self._max_held or len(self._flows) >= self._max_flows or len(packet) > MAX_SYN_SIZE:
            return Verdict.FULL
        flow = self._flows[key] = _Flow(sequence, packet, now + GIVE_UP_S)
        self._held += 1
        self._arm(key, flow)
        self._events.append(FlowSyn(key))
        return Verdict.KEEP

    def _retransmitted(self, key: WireKey, flow: _Flow, now: float) -> Verdict:
        if flow.state in (State.HELD, State.SILENT):
            flow.deadline = now + GIVE_UP_S
            return Verdict.KEEP
        if flow.state is State.RELEASED:
            flow.deadline = now + GIVE_UP_S
        return Verdict.FORWARD

    def handle_segment(self, key: WireKey, flags: int, now: float) -> Verdict:
        """Anything else from the app."""
        flow = self._flows.get(key)
        if flow is None:
            # A RST of an app that gave up goes on to our kernel, whose half-open connection it ends.
            return Verdict.FORWARD if flags & RST else Verdict.RESET
        if flow.state in (State.HELD, State.SILENT):
            return Verdict.KEEP  # an app in SYN_SENT sends nothing but its SYN
        if flags & RST and flow.state is State.RELEASED:
            self._cancel(key, flow)
            return Verdict.FORWARD
        flow.app_ended |= bool(flags & FIN)
        flow.was_reset |= bool(flags & RST)
        self._note_end(key, flow, now)
        return Verdict.FORWARD

    def handle_origin_segment(self, key: WireKey, flags: int, now: float) -> None:
        """A FIN or RST that our own kernel sends to the app. `key` is the app's, not the packet's."""
        flow = self._flows.get(key)
        if flow is None or flow.state in (State.HELD, State.SILENT):
            return
        flow.origin_ended |= bool(flags & FIN)
        flow.was_reset |= bool(flags & RST)
        self._note_end(key, flow, now)

    # ── what the owner decides ──

    def release(self, key: WireKey, now: float) -> bytes | None:
        """The origin accepted: the SYN to write to the private namespace. None if the app gave up meanwhile."""
        flow = self._flows.get(key)
        if flow is None or flow.state is not State.HELD:
            return None
        packet, flow.packet = flow.packet, b""
        flow.deadline = now + GIVE_UP_S
        self._move(key, flow, State.RELEASED)
        return packet

    def remove(self, key: WireKey) -> bytes | None:
        """The origin or a decision refused: the SYN, to be answered. None if the app gave up meanwhile."""
        flow = self._flows.get(key)
        if flow is None or flow.state is not State.HELD:
            return None
        self._move(key, flow, State.GONE)
        return flow.packet

    def silence(self, key: WireKey) -> None:
        """The origin timed out: ignore this SYN's retransmits until the app times out too."""
        flow = self._flows.get(key)
        if flow is not None and flow.state is State.HELD:
            flow.packet = b""
            self._move(key, flow, State.SILENT)

    def accept(self, key: WireKey) -> bool:
        """Our kernel accepted the connection; False if nobody waits for it any more (reset it then)."""
        flow = self._flows.get(key)
        if flow is None or flow.state is not State.RELEASED:
            return False
        flow.deadline = math.inf
        self._move(key, flow, State.OPEN)
        return True

    def forget(self, key: WireKey, now: float) -> None:
        """The owner closed the socket: what is still under way passes, then the flow leaves. Ignored while held."""
        flow = self._flows.get(key)
        if flow is not None and flow.state in (State.RELEASED, State.OPEN):
            self._move(key, flow, State.ENDING)
            flow.deadline = now + FORGOTTEN_LINGER_S
            self._arm(key, flow)

    # ── time and output ──

    def handle_timeout(self, now: float) -> None:
        """Let go of what is over: apps that gave up in SYN_SENT, flows that have ended."""
        while self._timers and self._timers[0][0] <= now:
            at, key = heapq.heappop(self._timers)
            flow = self._flows.get(key)
            if flow is None or flow.armed != at:
                continue  # an entry of a flow that went, or that has an earlier one
            flow.armed = math.inf
            if flow.deadline <= now:
                self._cancel(key, flow)
            elif flow.deadline < math.inf:
                self._arm(key, flow)

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` is due; None for never."""
        return self._timers[0][0] if self._timers else None

    def poll_event(self) -> Event | None:
        """The next event; None when drained."""
        return self._events.popleft() if self._events else None

    # ── inside ──

    def _note_end(self, key: WireKey, flow: _Flow, now: float) -> None:
        ended = flow.was_reset or (flow.app_ended and flow.origin_ended)
        if ended and flow.state is State.OPEN:
            self._move(key, flow, State.ENDING)
        if flow.state is State.ENDING:
            flow.deadline = now + (ENDED_LINGER_S if ended else FORGOTTEN_LINGER_S)
            self._arm(key, flow)

    def _cancel(self, key: WireKey, flow: _Flow) -> None:
        if flow.state in _OWNED:
            self._events.append(FlowCancelled(key))
        self._move(key, flow, State.GONE)

    def _move(self, key: WireKey, flow: _Flow, state: State) -> None:
        if state not in _EDGES[flow.state]:
            raise RuntimeError(f"a flow can't go from {flow.state.value} to {state.value}")
        self._held -= flow.state is State.HELD
        flow.state = state
        if state in (State.RELEASED, State.OPEN):
            self.passing.add(key)
        else:
            self.passing.discard(key)
        if state is State.GONE:
            del self._flows[key]

    def _arm(self, key: WireKey, flow: _Flow) -> None:
        if flow.deadline >= flow.armed:
            return
        flow.armed = flow.deadline
        heapq.heappush(self._timers, (flow.deadline, key))
        if len(self._timers) > 2 * len(self._flows) + _STALE_TIMERS:
            self._timers = [(flow.armed, key) for key, flow in self._flows.items() if flow.armed < math.inf]
            heapq.heapify(self._timers)
