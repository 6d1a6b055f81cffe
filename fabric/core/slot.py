"""A circuit socket's binding, as its node sees it: Bind → Challenge → Answer → Bound; when, and what it means.

The slot is told what its node knows (`authenticated`, `sent`, `flight`, `circuits`, `network_changed`, `suspect`,
`attachment`), gets the control packets that arrive for it (`handle_control`), and says what to send (`poll_transmit`),
what came of it (`poll_event`) and when it wants to be called (`poll_timeout` → `handle_timeout`). The order in the file
is that of a binding: cause, Bind, Challenge, Bound; then hints and timers. (protocol.md, section 2.)
"""

from __future__ import annotations

import enum
import math
from collections import deque
from typing import NamedTuple

from warren.fabric.core import frames
from warren.fabric.core.backoff import Backoff
from warren.fabric.core.engine import Buffer, PathChange
from warren.fabric.core.frames import HEADER, LARGEST, SIZES, SMALLEST, Bound, Challenge, Rebind, Unknown

PTO = 0.2
"""Assumed while no connection has told one."""
RETRY_FIRST, RETRY_MOST, RETRY_LATE = 0.1, 1.0, 5.0
LATE = 60.0
"""Seconds of silence, or of Binds without an answer, after which one is sent every RETRY_LATE."""
COUNTERS = 4
"""Challenges and Bounds of so many last counters count: on a long way the answer comes after the next Bind."""
CHALLENGES = 16
"""Challenges answered for each counter: a forged one that races ahead shuts out nothing, and a flood costs little."""
VERIFY_TRIES = 3
"""After so many Binds without an answer, and again after as many, the owner looks whether the switch is still there."""
ALL_SIZES_EVERY = 4
PATIENCE = 0.25
"""A silence is two PTOs, and at least this."""
TRAIN, TRAIN_TIME = 10, 1.0
TRAIN_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
TRAIN_PATIENCE = 0.5
IDLE = 20.0
"""A NAT may forget a mapping that nothing used for half a minute."""
REGROW_ASKS, REGROW_LATE = 2, 600.0
HINT_FIRST, HINT_MOST = 1.0, 16.0
SUSPECT_EVERY = 1.0
OFFER_AFTER = 1.0
"""Seconds without a packet, or a Bound, after which a circuit that is offered is a reason to bind."""
OUT_LIMIT = COUNTERS * CHALLENGES + 2 * len(SIZES)
"""Control packets that wait for `poll_transmit`; the oldest go first."""


class Cause(enum.Enum):
    """Why a Bind was sent."""

    CREATED = "created"
    ATTACHED = "attached"
    NETWORK = "network"
    HINT = "hint"
    SUSPECT = "suspect"
    OFFER = "offer"
    RETRY = "retry"
    SILENCE = "silence"
    TRAIN = "train"
    IDLE = "idle"
    REGROW = "regrow"


class Timer(enum.Enum):
    """What `handle_timeout` is for; each but RETRY waits while a Bind is unanswered."""

    RETRY = Cause.RETRY
    SILENCE = Cause.SILENCE
    TRAIN = Cause.TRAIN
    IDLE = Cause.IDLE
    REGROW = Cause.REGROW
    OFFER = Cause.OFFER


class SlotBound(NamedTuple):
    """The binding holds. `change`: what each connection that leads here has to be told, or None.
    `size`: bytes an engine may fill behind the header as far as this slot goes (circuits' sizes come by message)."""

    change: PathChange | None
    size: int
    resized: bool


class Verify(NamedTuple):
    """The switch may be another process by now: look at its boot id by a second attachment, at most one at a time."""


SlotEvent = SlotBound | Verify


class Slot:
    """One circuit socket's identity at one switch."""

    def __init__(self, index: int, id: bytes, key: bytes, now: float, *, listens: bool = False) -> None:
        """`index`: 0 streams, 1 datagrams. `id` (7 bytes), `key` (16 bytes): from the switch, over the attachment.
        `listens`: circuits are offered to this node, so its NAT must know it while it has none, too."""
        self.index, self.id, self.key = index, id, key
        self.size = SMALLEST
        self.generation: int | None = None
        self.counter = 0
        self.sent_for: dict[Cause, int] = dict.fromkeys(Cause, 0)
        """Bindings begun, by cause."""
        self._alive = True
        self._moved = False
        self._circuits = 0
        self._listens = listens
        # the binding under way
        self._pending = False
        self._needed = 0
        self._bound_counter = 0
        self._answers: dict[int, int] = {}
        self._retry = Backoff(RETRY_FIRST, RETRY_MOST)
        self._bind_at = self._retry_at = self._asked_at = now
        self._bound_at = now
        # what its connections say
        self._pto = PTO
        self._flight_since: float | None = None
        self._authentic_at = -math.inf
        self._sent_at = now
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=TRAIN)
        # timers of their own
        self._silence_binds = 0
        self._train_at: float | None = None
        self._train_waits = 0
        self._regrow_at: float | None = None
        self._regrow_asks = 0
        self._offer_at: float | None = None
        self._hints = Backoff(HINT_FIRST, HINT_MOST)
        self._hint_at = 0.0
        self._suspect_at = 0.0
        self._out: deque[bytes] = deque(maxlen=OUT_LIMIT)
        self._events: deque[SlotEvent] = deque()
        self._bind(Cause.CREATED, now)

    # ---- what the node knows ----

    def authenticated(self, now: float, packets: int = 1) -> None:
        """So many packets that authenticated and were no duplicates came by this slot."""
        self._authentic_at = now
        self._silence_binds = 0
        self._offer_at = None
        if self._hints.tries:
            self._hints.reset()
        self._arrivals.append((now, packets))
        self._watch_train(now)

    def sent(self, now: float) -> None:
        """Data left by this slot."""
        self._sent_at = now

    def flight(self, pto: float, since: float | None) -> None:
        """Of the connections that lead here: the longest PTO, and since when, at the earliest, one of them has had
        data in flight (None: none has)."""
        self._pto = pto
        if since != self._flight_since:
            self._flight_since = since
            self._silence_binds = 0

    def circuits(self, count: int) -> None:
        """How many circuits the slot has; without any, nothing is in flight and only a node that listens
        sends Binds for idleness."""
        self._circuits = count
        if not count:
            self._flight_since, self._train_at = None, None

    def network_changed(self, now: float) -> None:
        """A local address or the route to the switch changed."""
        self._moved = True
        self._bind(Cause.NETWORK, now)

    def suspect(self, now: float) -> bool:
        """Large packets vanish: `large_lost`, EMSGSIZE, or the other end's `Suspect`. At most one a second counts, and
        none while a Bind is unanswered: False."""
        if now < self._suspect_at or self._pending:
            return False
        self._suspect_at = now + SUSPECT_EVERY
        self._bind(Cause.SUSPECT, now)
        return True

    def offered(self, now: float) -> None:
        """A circuit through this slot was offered: its first packet comes to the address that was bound last, which
        a NAT may have changed while nothing was sent. Where something came just now, it may have changed since: if
        nothing comes, binds later."""
        if not self._pending and now - max(self._authentic_at, self._bound_at) > OFFER_AFTER:
            self._bind(Cause.OFFER, now)
        else:
            self._offer_at = now + OFFER_AFTER

    def attachment(self, alive: bool, now: float) -> None:
        """Whether the attachment that owns the slot lives: Binds stop when it is known dead."""
        came_back = alive and not self._alive
        self._alive = alive
        if came_back:
            self._bind(Cause.ATTACHED, now)

    @property
    def bound(self) -> bool:
        """A Bound has come since the last cause for a Bind."""
        return self.generation is not None and not self._pending

    # ---- Bind ----

    def _bind(self, cause: Cause, now: float) -> None:
        """A new counter, and its Binds. Everything but a retry asks for a Bound of this counter or a later one."""
        if not self._alive:
            return
        self.sent_for[cause] += 1
        self.counter += 1
        if cause is Cause.OFFER:
            self._offer_at = None
        if cause is not Cause.RETRY:
            self._needed = self.counter
            self._asked_at = now
            self._retry.reset(max(self._pto, RETRY_FIRST))
        self._pending = True
        late = now - self._asked_at > LATE or self._silence(now) > LATE
        wait = self._retry.next()
        self._bind_at, self._retry_at = now, now + (RETRY_LATE if late else wait)
        self._regrow_at = None
        self._answers = {c: n for c, n in self._answers.items() if c > self.counter - COUNTERS}
        for size in self._sizes(cause, now):
            self._out.append(frames.bind(self.id, self.key, self.counter, self._moved, size))

    def _sizes(self, cause: Cause, now: float) -> tuple[int, ...]:
        """All three; while a silence lasts, the smallest and the one that was bound last, and all three every fourth
        time. (The smallest alone would make it the circuits' size each time, and engines throw away what is larger.)"""
        if cause not in (Cause.RETRY, Cause.SILENCE):
            return SIZES
        if cause is Cause.SILENCE or self._silence(now) >= self._pto:
            self._silence_binds += 1
            times = self._silence_binds
        else:
            times = self._retry.tries - VERIFY_TRIES
        if times <= 0 or times % ALL_SIZES_EVERY == 1:
            return SIZES
        return (SMALLEST,) if self.size == SMALLEST else (self.size, SMALLEST)

    def _silence(self, now: float) -> float:
        """How long data has been in flight with nothing authenticated received."""
        if self._flight_since is None:
            return 0.0
        return now - max(self._authentic_at, self._flight_since)

    # ---- Challenge, Bound ----

    def handle_control(self, data: Buffer, now: float) -> None:
        """A control packet that carries the slot's id, or a hint that carries the id of one of its circuits.
        Any bytes are allowed; what is not genuine is dropped."""
        match frames.decode(data):
            case Challenge() as message if self._counts(message.slot, message.counter):
                self._challenged(message)
            case Bound() as message if self._counts(message.slot, message.counter):
                if frames.genuine(data, self.key):
                    self._bound(message, now)
            case Rebind() | Unknown() as message:
                self._hinted(message, now)

    def _counts(self, slot: bytes, counter: int) -> bool:
        oldest = max(self.counter - COUNTERS + 1, self._bound_counter)
        return slot == self.id and oldest <= counter <= self.counter

    def _challenged(self, message: Challenge) -> None:
        """Each is answered: it has no mac, and a forged one must not shut out the true one."""
        answers = self._answers.get(message.counter, 0)
        if answers >= CHALLENGES or not self._alive:
            return
        self._answers[message.counter] = answers + 1
        self._out.append(frames.answer(self.id, self.key, message.counter, self._moved, message.cookie))

    def _bound(self, message: Bound, now: float) -> None:
        if message.counter == self._bound_counter and message.size <= self.size:
            return  # said again, or an old one replayed
        resumed = self._silence(now) >= max(2 * self._pto, PATIENCE)
        change = self._change(message)
        satisfied = self._pending and message.counter >= self._needed
        self._bound_counter, self._bound_at = message.counter, now
        if satisfied:
            self._pending = self._moved = False
            self._retry.reset()
            if change is None and resumed:
                change = PathChange.RESUMED
        self._resize(message.size, now, satisfied, change)

    def _change(self, message: Bound) -> PathChange | None:
        """What the generation says, compared with the last seen: a Bound that was lost loses nothing."""
        before, self.generation = self.generation, message.generation
        changes = 0 if before is None else (message.generation - before) % 2**32
        if not 0 < changes < 2**31:
            return None
        address = changes > 8 or message.how & ((1 << changes) - 1)
        return PathChange.MOVED if address or self._moved else PathChange.REBOUND

    def _resize(self, size: int, now: float, satisfied: bool, change: PathChange | None) -> None:
        """Used at once; what is below the largest is asked for again: after a PTO, twice, then every ten minutes."""
        before, self.size = self.size, size
        if size == LARGEST:
            self._regrow_at, self._regrow_asks = None, 0
        elif satisfied:
            if size < before:
                self._regrow_asks = 0
            soon = self._regrow_asks < REGROW_ASKS
            self._regrow_asks += 1
            self._regrow_at = now + (max(self._pto, RETRY_FIRST) if soon else REGROW_LATE)
        self._events.append(SlotBound(change, size - HEADER, size != before))

    # ---- hints ----

    def _hinted(self, message: Rebind | Unknown, now: float) -> None:
        """Anybody can forge one: ignored while the way works, followed once a second, then ever more rarely. Without
        an attachment, one that the switch knows nothing of us tells that there is a switch again."""
        if now < self._hint_at or now - self._authentic_at < self._pto:
            return
        if not self._alive and isinstance(message, Rebind):
            return
        if isinstance(message, Rebind) and self._pending and now - self._bind_at < max(self._pto, RETRY_FIRST):
            return  # its answer may be on the way; after a blackout the next try may be a second away
        self._hint_at = now + self._hints.next()
        if isinstance(message, Unknown):
            self._events.append(Verify())
        else:
            self._bind(Cause.HINT, now)

    # ---- silence, trains, idleness ----

    def _watch_train(self, now: float) -> None:
        """Ten packets within a second are a train: somebody sends to us, and we notice when it stops."""
        count = 0
        self._train_at = None
        for at, packets in reversed(self._arrivals):
            if at <= now - TRAIN_TIME:
                break
            count += packets
            if count >= TRAIN:
                self._train_at = now + max(2 * self._pto, TRAIN_PATIENCE)
                self._train_waits = 0
                break

    def _silence_due(self) -> float | None:
        if self._flight_since is None:
            return None
        began = max(self._authentic_at, self._flight_since)
        if not self._silence_binds:
            return max(began + self._pto, self._bound_at + max(self._pto, RETRY_FIRST))
        return self._bind_at + (RETRY_LATE if self._bind_at - began > LATE else RETRY_MOST)

    def _timers(self) -> tuple[tuple[float | None, Timer], ...]:
        if not self._alive:
            return ()
        if self._pending:
            return ((self._retry_at, Timer.RETRY),)
        return (
            (self._silence_due(), Timer.SILENCE),
            (self._train_at if self._flight_since is None else None, Timer.TRAIN),
            (max(self._bound_at, self._sent_at) + IDLE if self._circuits or self._listens else None, Timer.IDLE),
            (self._regrow_at if not self._silence_binds else None, Timer.REGROW),
            (self._offer_at, Timer.OFFER),
        )

    # ---- contract ----

    def poll_timeout(self) -> tuple[float, Timer] | None:
        first: tuple[float, Timer] | None = None
        for at, timer in self._timers():
            if at is not None and (first is None or at < first[0]):
                first = at, timer
        return first

    def handle_timeout(self, now: float) -> None:
        due = self.poll_timeout()
        if due is None or due[0] > now:
            return
        timer = due[1]
        if timer is Timer.TRAIN:
            self._train_on(now)
        if timer is Timer.RETRY and self._retry.tries % VERIFY_TRIES == 0:
            self._events.append(Verify())
        self._bind(timer.value, now)

    def _train_on(self, now: float) -> None:
        waits = self._train_waits
        self._train_at = now + TRAIN_WAITS[waits] if waits < len(TRAIN_WAITS) else None
        self._train_waits += 1

    def poll_transmit(self) -> bytes | None:
        """The next control packet, to be sent from this slot's socket to the switch."""
        return self._out.popleft() if self._out else None

    def poll_event(self) -> SlotEvent | None:
        return self._events.popleft() if self._events else None
