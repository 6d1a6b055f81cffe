"""The circuits of one peer connection: which one leads, and what is done when it falls silent. Pure.

One circuit leads and carries everything; the others stand by, bound in advance, through other edges. The order in the
file is that of a failure: a silence, copies on every circuit, each circuit alone in turn, something newest, a move.
(protocol.md, section 3; docs/decisions/0010.)

After each `Connection.receive` call `handle_received`, after each transmit `handle_flight`; then send on every circuit
that `ways` names, drain `poll_event`, re-arm one timer from `poll_timeout`. The engine is told what happened to its
path from here, so it has to be drained after every call.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from warren.fabric.core.engine import Batch, Connection, PathChange, Received
from warren.fabric.core.frames import HEADER

CIRCUITS = 4
"""Circuits of one peer connection: two edges, and one of each that is being replaced."""
PATIENCE = 0.25
"""A silence is two PTOs, and at least this."""
COPIES = 1.0
"""Seconds for which every datagram goes on each circuit; after them each circuit alone in turn."""
TURN, TURN_SHARE, TURN_MOST = 0.6, 20, 2.0
"""Seconds of a turn, at least, and the part of the silence so far that it takes, up to TURN_MOST: the other end follows
a PTO of its own after what the last turn brought it, and that PTO may be far longer than ours (LONG, PTO_MOST)."""
PROBES = 3
"""At first, in the patience: one may be lost, or sent just before the way came back."""
BRISK, STEADY = 5.0, 60.0
"""Seconds of silence for which there are so many probes in the patience, and seconds up to which each circuit has one
EVERY so often: a way that came back is found at once. From then on waits grow with the silence."""
EVERY, RAREST = 0.25, 5.0
"""Seconds from one probe of a circuit to the next one, and most seconds between two of a connection."""
AFTERWARDS, AFTER_EVERY = 1.0, 0.1
"""Seconds for which the engine is probed after turns, and how often: what comes first may have waited on the way, and
acknowledgements that did are long round trips to the engine. Its window is full, it says nothing, not even what it has
received, and its own probe may be seconds away."""
BOUND_EVERY = 10.0
"""Turns are broken off for copies when a slot is bound again, at most so often: that the way to the switch works is
news after a blackout, and none where the way behind the switch has failed and slots are bound once a second."""
UNSAMPLED = 0.5
"""Least PTO that is assumed of a path without a round-trip sample; that of the path before counts if it is longer."""
PTO_MOST = 8.0
"""Where doubling it at each further move ends."""
LONG, FAR = 0.5, 8
"""A PTO above LONG is believed up to so many of the smallest round trips: an end that stood still (SIGSTOP)
acknowledges after it what it had received before, and that is no round trip. Waits made from one last as long."""


class State(enum.Enum):
    """Where datagrams go."""

    LEADING = "leading"
    """On the leading circuit."""
    COPYING = "copying"
    """A copy on each."""
    TURNS = "turns"
    """On one at a time: a way may fail in one direction only, and then the copies that arrive first are answered into
    the void."""


TRANSITIONS = {
    State.LEADING: frozenset({State.COPYING}),
    State.COPYING: frozenset({State.COPYING, State.TURNS, State.LEADING}),
    State.TURNS: frozenset({State.COPYING, State.LEADING}),
}
"""Silence; a second without an answer; something newest, or nothing to be copied for; a way that works again."""


class Timer(enum.Enum):
    """What `handle_timeout` is for."""

    SILENCE = "silence"
    FOLLOW = "follow"
    """Another circuit brings what is newest, and the leading one nothing."""
    PROBE = "probe"
    AFTERWARDS = "afterwards"
    """Something came after a silence."""


class Moved(NamedTuple):
    """Another circuit leads; the engine knows."""

    circuit: bytes
    before: bytes
    silence: float
    """Seconds for which the one before had brought nothing newest."""


@dataclass(slots=True)
class _Way:
    size: int
    newest_at: float


def believed_pto(connection: Connection) -> float:
    """The engine's PTO, as far as waits of ours are made from it."""
    pto = connection.pto()
    return pto if pto <= LONG else min(pto, max(LONG, FAR * connection.statistics().smallest_round_trip))


class Paths:
    """The circuits of one peer connection, as one end sees them."""

    def __init__(self, connection: Connection, circuit: bytes, size: int, now: float, *, agent: bool) -> None:
        """`circuit` leads at first. `size`: bytes that the engine may fill there. `agent`: the end that leads; it
        follows the other later than that follows it, so that the two never change places."""
        self.lead = circuit
        self.state = State.LEADING
        self.moves = 0
        self.silences = 0
        """Times that copies were sent."""
        self._connection = connection
        self._agent = agent
        self._ways = {circuit: _Way(size, now)}
        self._newest = circuit
        self._heard_at = now
        self._owed_since: float | None = None
        """When something came after which nothing was sent."""
        self._flight_since: float | None = None
        self._pto = UNSAMPLED
        self._unheard = False
        """Nothing has come since the last move."""
        self._since = self._probe_at = now
        self._bound_at = -math.inf
        self._after_at, self._after_until = math.inf, -math.inf
        self._turn = self._probes_left = 0
        self._events: deque[Moved] = deque(maxlen=CIRCUITS)
        connection.resize(size)

    # ---- circuits ----

    @property
    def circuits(self) -> tuple[bytes, ...]:
        """The leading one first."""
        return (self.lead, *(circuit for circuit in self._ways if circuit != self.lead))

    @property
    def flight_since(self) -> float | None:
        """Since when something is unacknowledged."""
        return self._flight_since

    def add(self, circuit: bytes, size: int, now: float) -> bool:
        """A further circuit, which stands by. False: there are enough (or it is known)."""
        if circuit in self._ways or len(self._ways) >= CIRCUITS:
            return False
        self._ways[circuit] = _Way(size, -math.inf)
        self._fit()
        if self.state is not State.LEADING:
            self._copy(now)
        return True

    def remove(self, circuit: bytes, now: float, successor: bytes | None = None) -> bool:
        """A circuit is over; another leads then (`successor`, or the one that brought something last). False: it is
        the only one, and stays."""
        if circuit not in self._ways or len(self._ways) == 1:
            return False
        gone = self._ways.pop(circuit)
        self._fit()
        if circuit == self.lead:
            latest = max(self._ways, key=lambda one: self._ways[one].newest_at)
            self._enter(State.LEADING)
            self._move(successor if successor in self._ways else latest, gone.newest_at, now)
        elif self._newest == circuit:
            self._newest = self.lead
        return True

    def resize(self, circuit: bytes, size: int, now: float) -> None:
        """The circuit's size has changed. A copy has to fit each of them. What was sent on a circuit whose other end
        was not bound is lost: sizes change also when it is."""
        if circuit in self._ways:
            self._ways[circuit].size = size
            self._fit()
            if self._unheard:
                self.handle_changed(circuit, PathChange.RESUMED, now)

    def _fit(self) -> None:
        self._connection.resize(min(way.size for way in self._ways.values()))

    # ---- silence ----

    def handle_flight(self, now: float) -> None:
        """After datagrams were sent or received: is something unacknowledged?"""
        if not self._connection.in_flight():
            self._flight_since = None
        elif self._flight_since is None:
            self._flight_since = now

    def _silence(self, now: float) -> float:
        """How long data has been in flight with nothing received that authenticates and is no duplicate."""
        return 0.0 if self._flight_since is None else now - max(self._heard_at, self._flight_since)

    def pto(self) -> float:
        """The PTO that waits are made of: until a new path has given a sample, that of the path before."""
        return believed_pto(self._connection) if self._connection.sampled() else self._pto

    def _patience(self) -> float:
        return max(2 * self.pto(), PATIENCE)

    # ---- copies, turns ----

    def ways(self) -> tuple[bytes, ...]:
        """The circuits on which each datagram goes now; never empty."""
        match self.state:
            case State.LEADING:
                return (self.lead,)
            case State.COPYING:
                return self.circuits
            case State.TURNS:
                others_first = (*self.circuits[1:], self.lead)
                return (others_first[self._turn % len(others_first)],)

    def _copy(self, now: float, already: float = 0.0) -> None:
        """The engine's next probe may be far away. `already`: seconds for which copies count as sent."""
        self._enter(State.COPYING)
        self._since = now - already
        self._probe(now)

    def _next_probe(self, now: float) -> None:
        if self.state is State.COPYING and now - self._since >= COPIES:
            self._enter(State.TURNS)
            self._probes_left = 0
        if self.state is State.TURNS:
            self._take_turns(now)
        self._probe(now)

    def _take_turns(self, now: float) -> None:
        """Turns outlast the patience: by then the other end has followed, and its answer come."""
        if not self._probes_left:
            self._turn += 1
            turn = max(self._patience(), TURN, min(self._silence(now) / TURN_SHARE, TURN_MOST))
            self._probes_left = max(1, round(turn / self._pace(now)))
        self._probes_left -= 1

    def _probe(self, now: float) -> None:
        self._connection.probe(now)
        self._probe_at = now + self._pace(now)

    def _pace(self, now: float) -> float:
        """Seconds from one probe to the next."""
        silence, steady = self._silence(now), EVERY / len(self._ways)
        if silence < BRISK:
            return min(self._patience() / PROBES, steady)
        return min(steady * max(1.0, silence / STEADY), RAREST)

    # ---- something newest ----

    def handle_received(self, circuit: bytes, received: Received, now: float) -> None:
        """What the engine said of a buffer that came by this circuit."""
        way = self._ways.get(circuit)
        if way is None or not received.authenticated:
            return
        self._heard_at, self._unheard = now, False
        self._answer(now)
        if not received.newest:
            return
        lead_at, way.newest_at, self._newest = self._ways[self.lead].newest_at, now, circuit
        if self.state is not State.LEADING:
            self._answered(circuit, lead_at, now)
        else:
            self._follow(now)

    def handle_sent(self) -> None:
        """A batch has left."""
        self._owed_since = None

    def _answer(self, now: float) -> None:
        """An engine whose window is full keeps even its acknowledgements back, until its own PTO. The other end, whose
        window fills meanwhile, is heard but not answered: so no silence tells it."""
        if self._owed_since is None:
            self._owed_since = now
        elif self._flight_since is not None and now - self._owed_since > self._patience():
            self._owed_since = now
            self._connection.probe(now)

    def _answered(self, circuit: bytes, lead_at: float, now: float) -> None:
        if self.state is State.TURNS:
            self._after_at, self._after_until = now + AFTER_EVERY, now + AFTERWARDS
        self._enter(State.LEADING)
        if circuit != self.lead:
            self._move(circuit, lead_at, now)
        else:
            self._connection.path_changed(now, PathChange.RESUMED)

    def _follow_at(self) -> float | None:
        """When the circuit that brought what is newest will lead, if the leading one goes on bringing nothing."""
        if self._newest == self.lead or self.state is not State.LEADING:
            return None
        return self._ways[self.lead].newest_at + (self._patience() if self._agent else self.pto())

    def _follow(self, now: float) -> None:
        at = self._follow_at()
        if at is not None and now >= at:
            self._move(self._newest, self._ways[self.lead].newest_at, now)

    def _move(self, circuit: bytes, lead_at: float, now: float) -> None:
        if self._connection.sampled():
            self._pto = max(believed_pto(self._connection), UNSAMPLED)
        else:
            self._pto = min(2 * self._pto, PTO_MOST)
        before, self.lead, self._newest = self.lead, circuit, circuit
        self._ways[circuit].newest_at = self._heard_at = now
        self._unheard = True
        self.moves += 1
        self._connection.path_changed(now, PathChange.MOVED)
        self._events.append(Moved(circuit, before, now - lead_at))

    def _enter(self, state: State) -> None:
        if state is self.state is State.LEADING:
            return
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"{self.state} → {state}")
        if self.state is State.LEADING:
            self.silences += 1
            self._bound_at, self._turn = -math.inf, -1
        self.state = state

    # ---- what slots tell ----

    def handle_changed(self, circuit: bytes, change: PathChange, now: float) -> None:
        """A slot of this circuit, at either end, was bound anew (slot.SlotBound, FarMoved)."""
        if circuit == self.lead:
            if change is PathChange.MOVED and self._connection.sampled():
                self._pto = max(believed_pto(self._connection), UNSAMPLED)
            self._connection.path_changed(now, change)
        if circuit not in self._ways:
            return
        if self.state is State.COPYING:
            self._probe(now)
        elif self.state is State.TURNS and now - self._bound_at >= BOUND_EVERY:
            self._bound_at = now
            self._copy(now, COPIES)

    # ---- contract ----

    def _timers(self) -> tuple[tuple[float | None, Timer], ...]:
        if self.state is not State.LEADING:
            return ((self._probe_at, Timer.PROBE),)
        flight = self._flight_since
        silent = None if flight is None else max(self._heard_at, flight) + self._patience()
        after = self._after_at if flight is not None and self._after_at <= self._after_until else None
        return (silent, Timer.SILENCE), (self._follow_at(), Timer.FOLLOW), (after, Timer.AFTERWARDS)

    def poll_timeout(self) -> tuple[float, Timer] | None:
        """When `handle_timeout` wants to be called, and for what."""
        first: tuple[float, Timer] | None = None
        for at, timer in self._timers():
            if at is not None and (first is None or at < first[0]):
                first = at, timer
        return first

    def handle_timeout(self, now: float) -> None:
        due = self.poll_timeout()
        if due is None or due[0] > now:
            return
        match due[1]:
            case Timer.SILENCE:
                self._copy(now)
            case Timer.FOLLOW:
                self._follow(now)
            case Timer.AFTERWARDS:
                self._after_at = now + AFTER_EVERY
                self._connection.probe(now)
            case Timer.PROBE if self._flight_since is None:
                self._enter(State.LEADING)
            case Timer.PROBE:
                self._next_probe(now)

    def poll_event(self) -> Moved | None:
        return self._events.popleft() if self._events else None


def copy_for(batch: Batch, header: bytes) -> Batch:
    """The same datagrams for another circuit: every segment begins with `header`."""
    data = bytearray().join(batch.parts)
    for start in range(0, len(data), batch.stride):
        data[start : start + HEADER] = header
    return Batch((data,), batch.stride, batch.segments)
