"""Attachments, slots and circuits of one switch: who may reach whom, and what each end is told.

`Circuits` is pure. In: attachments (`attach`, `detach`), their messages (`ask`, `drop`, `suspect`), control packets
(`handle_control`), data from nowhere (`stray`). Out: messages to attachments (`poll_message`), packets
(`poll_transmit`), the table that `forward.py` looks headers up in (`table`), counters. (protocol.md, section 3.)
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from warren.edge.switch.bindings import Bindings, Change
from warren.edge.switch.budget import Bucket, HintBudget
from warren.edge.switch.model import Admission, Circuit, Limits, Member, Slot
from warren.fabric.core import frames
from warren.fabric.core.engine import Address, Buffer
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.frames import HEADER, HINT_LENGTH, ID, KEY
from warren.fabric.core.messages import attachment as say
from warren.fabric.core.reasons import Reason

AWAY = 45.0
"""Seconds without a binding or a packet after which a slot's other ends hear that it is away: two idle Binds missed."""
SWEEP = 5.0
MISSED = 3.5
"""Seconds without a word of a connector, which beats once a second, after which it gets no new circuits."""
BEATS = 1.0
"""Seconds between looks at the connectors' beats."""
SUPERSEDED = 2
"""Circuits that one peer connection has between the same two slots: the one in use, and the one before it."""
PACKETS = 1024
"""Control packets that wait to be sent; they are drained after every buffer."""


class _Waiting(NamedTuple):
    until: float
    member: Member
    ask: say.Ask
    tunnel: str


class Timer(enum.Enum):
    ASK = "ask"
    SWEEP = "sweep"
    BEATS = "beats"


Permitted = Callable[[bytes, bytes], "str | Reason"]
"""(pass, agent's key) → the tunnel that the pass is for, or why not. Signatures and expiry are the judge's matter."""


class Circuits:
    """The switch's core."""

    def __init__(
        self,
        boot: bytes,
        permitted: Permitted,
        random: Callable[[int], bytes],
        now: float,
        limits: Limits | None = None,
    ) -> None:
        """`boot`: id of this process. `random(n)`: n unguessable bytes (ids, keys, the cookie's secret)."""
        self.boot = boot
        self.limits = limits or Limits()
        self.table: dict[bytes, Circuit] = {}
        """By the header that data packets of the circuit begin with."""
        self.members: dict[Member, None] = {}
        self.counters: Counter[str] = Counter()
        self._permitted = permitted
        self._random = random
        self._bindings = Bindings(random(32))
        self._hints = HintBudget(now)
        self._connectors: dict[str, dict[Member, None]] = {}
        self._of_node: dict[bytes, list[Slot]] = {}
        self._waiting: deque[_Waiting] = deque()
        self._sweep_at = now + SWEEP
        self._beats_at = now + BEATS
        self._settled_at = now + self.limits.settling
        self._messages: deque[tuple[Member, say.ToNode]] = deque()
        self._packets: deque[tuple[Address, bytes]] = deque(maxlen=PACKETS)

    @property
    def bindings_dropped(self) -> Counter[str]:
        """Control packets that bound nobody, by reason."""
        return self._bindings.dropped

    # ---- attachments ----

    def attach(self, admission: Admission, claimed: tuple[bytes, ...], now: float) -> Member:
        """A proved attachment. Slots of the same node key that it claims by id are taken over with their circuits.
        Raises DeniedError(LIMIT)."""
        if len(self.members) >= self.limits.members:
            raise DeniedError(Reason.LIMIT, "attachments")
        key, role, boot, tunnel, authority, revision = admission
        member = Member(key, role, boot, tunnel, now, authority, revision)
        member.budget = Bucket(self.limits.asks_per_second, self.limits.asks_burst, now)
        for id in claimed[: self.limits.slots_per_node]:
            slot = self._bindings.slots.get(id)
            if slot is not None and slot.node == key and slot.index not in member.slots:
                self._take_over(slot, member, now)
        for index in (0, 1):
            if index not in member.slots:
                self._give(member, index, now)
        self.members[member] = None
        given = tuple(
            say.SlotGiven(i, s.id, s.key, tuple(s.circuits) if role == "agent" else None)
            for i, s in sorted(member.slots.items())
        )
        self._messages.append((member, say.Attached(self.boot, given)))
        for slot in member.slots.values():
            self._catch_up(slot)
        if role == "connector":
            self._connectors.setdefault(tunnel, {})[member] = None
            self._retry(tunnel, now)
        return member

    def detach(self, member: Member, now: float) -> None:
        """The attachment has ended. Its slots and circuits are held; the other ends hear that it is away."""
        if self.members.pop(member, self) is self:
            return
        self._leave_tunnel(member)
        self._waiting = deque(w for w in self._waiting if w.member is not member)
        for slot in member.slots.values():
            if slot.member is member:
                slot.member, slot.gone_at = None, now
                self._tell_away(slot)

    def expel(self, key: bytes, reason: Reason, now: float) -> list[Member]:
        """The node with this key may stay no longer: its circuits end, its slots are forgotten. Returns its
        attachments, whose connections the caller closes."""
        gone = [member for member in self.members if member.key == key]
        for slot in list(self._of_node.get(key, ())):
            self._forget(slot, reason)
        for member in gone:
            self.detach(member, now)
        return gone

    def beat(self, member: Member, now: float) -> None:
        silent, member.silent, member.heard = member.silent, False, now
        if silent and member.role == "connector":
            self._retry(member.tunnel, now)

    def _take_over(self, slot: Slot, member: Member, now: float) -> None:
        before, slot.member = slot.member, member
        member.slots[slot.index] = slot
        if before is not None:
            before.slots.pop(slot.index, None)
            if not before.slots:
                self._let_go(before, Reason.CANCELLED, now)

    def _give(self, member: Member, index: int, now: float) -> None:
        owned = self._of_node.setdefault(member.key, [])
        if len(owned) >= self.limits.slots_per_node:
            self._make_room(member, owned, now)
        slot = Slot(self._new_id(self._bindings.slots), self._random(KEY), index, member.key, member, now)
        self._bindings.slots[slot.id] = slot
        self._of_node.setdefault(member.key, []).append(slot)
        member.slots[index] = slot

    def _make_room(self, member: Member, owned: list[Slot], now: float) -> None:
        """The newest attachment of a key wins: a node that was killed and started again must not wait until its old
        connections are known dead. First goes what is held longest, then the oldest attachment."""
        held = [slot for slot in owned if slot.member is None]
        if held:
            self._forget(min(held, key=lambda slot: slot.gone_at), Reason.PEER_GONE)
            return
        oldest = next((slot.member for slot in owned if slot.member is not member), None)
        if oldest is not None:
            for slot in list(oldest.slots.values()):
                self._forget(slot, Reason.PEER_GONE)
            self._let_go(oldest, Reason.LIMIT, now)

    def _let_go(self, member: Member, reason: Reason, now: float) -> None:
        """An attachment that has no slots any more: its connection is to be closed."""
        self.detach(member, now)
        self._messages.append((member, say.Rejected(reason.code)))

    def _catch_up(self, slot: Slot) -> None:
        """What the node has to hear about the circuits of a slot that it took over."""
        for id, code in slot.missed.items():
            self._tell(slot, say.Drop(id, code))
        slot.missed.clear()
        for circuit in slot.circuits.values():
            if slot is circuit.connector and not circuit.from_connector:
                self._offer(circuit)  # the first offer may have been lost with the attachment before
            self._tell(slot, say.Resized(circuit.id, circuit.size))
            there = circuit.far(slot).member
            if there is None or there.silent:
                self._tell(slot, say.FarAway(circuit.id))

    def _leave_tunnel(self, member: Member) -> None:
        there = self._connectors.get(member.tunnel, {})
        there.pop(member, None)
        if not there:
            self._connectors.pop(member.tunnel, None)

    # ---- circuits ----

    def ask(self, member: Member, ask: say.Ask, now: float) -> None:
        """An agent asks for a circuit: answered by `Circuit` or `NoCircuit`, at once or within `ask_wait`,
        where this process is new within `settling`."""
        self.beat(member, now)
        tunnel = self._tunnel(member, ask, now)
        if isinstance(tunnel, Reason):
            self._refuse(member, ask, tunnel)
        elif not self._connect(member, ask, tunnel, now):
            if not ask.patient:
                self._refuse(member, ask, Reason.TUNNEL_DOWN)
                return
            if len(self._waiting) >= self.limits.asks or member.asks >= self.limits.asks_per_node:
                self._refuse(member, ask, Reason.LIMIT)
                return
            member.asks += 1
            until = max(now + self.limits.ask_wait, self._settled_at)
            self._waiting.append(_Waiting(until, member, ask, tunnel))

    def drop(self, member: Member, drop: say.Drop, now: float) -> None:
        """Either end ends a circuit; the other is told. Of a circuit that is not its own: nothing happens."""
        self.beat(member, now)
        circuit, slot = self._own(member, drop.circuit)
        if circuit is not None and slot is not None:
            self._end(circuit, drop.reason, (circuit.far(slot),))

    def suspect(self, member: Member, suspect: say.Suspect, now: float) -> None:
        """One end believes that large packets vanish: the other is told, so that it binds too."""
        self.beat(member, now)
        circuit, slot = self._own(member, suspect.circuit)
        if circuit is not None and slot is not None:
            self._tell(circuit.far(slot), say.Suspect(circuit.id))

    def _tunnel(self, member: Member, ask: say.Ask, now: float) -> str | Reason:
        slot = member.slots.get(ask.index)
        if member.role != "agent" or slot is None or len(ask.peer) != 16:
            return Reason.PROTOCOL
        if len(slot.circuits) >= self.limits.circuits_per_agent or not (member.budget and member.budget.take(now)):
            return Reason.LIMIT
        return self._permitted(ask.permit, member.key)

    def _connect(self, member: Member, ask: say.Ask, tunnel: str, now: float) -> bool:
        connector = self._choose(tunnel, ask)
        if connector is None:
            return False
        here, there = member.slots[ask.index], connector.slots[ask.index]
        self._supersede(here, there, ask.peer)
        circuit = Circuit(self._new_circuit_id(), here, there, ask.peer, ask.permit, self.limits, now)
        circuit.size = min(here.size, there.size) - HEADER
        self.table[frames.header(circuit.id)] = circuit
        here.circuits[circuit.id] = there.circuits[circuit.id] = circuit
        self.counters["circuits"] += 1
        self._offer(circuit)
        self._tell(here, say.Circuit(ask.request, circuit.id, circuit.size, connector.boot, connector.authority))
        return True

    def _offer(self, circuit: Circuit) -> None:
        there = circuit.connector
        offer = say.Offer(circuit.id, there.index, circuit.size, circuit.peer, circuit.agent.node, circuit.permit)
        self._tell(there, offer)

    def _supersede(self, here: Slot, there: Slot, peer: bytes) -> None:
        """A peer connection uses one circuit between two slots. The one before it may still carry packets; those
        before that are what answers that got lost have left behind."""
        known = [one for one in here.circuits.values() if one.peer == peer and one.connector is there]
        for circuit in known[: 1 - SUPERSEDED]:
            self._end(circuit, Reason.CANCELLED.code, ())

    def _choose(self, tunnel: str, ask: say.Ask) -> Member | None:
        """The least loaded connector whose slot is bound (a first packet would be lost otherwise)."""
        able = [
            connector
            for connector in self._connectors.get(tunnel, ())
            if (connector.boot == ask.boot if ask.boot else connector.boot not in ask.tried)
            and not connector.silent
            and ask.index in connector.slots
            and connector.slots[ask.index].address is not None
            and connector.load < self.limits.circuits_per_connector
        ]
        return min(able, key=lambda connector: connector.load) if able else None

    def _retry(self, tunnel: str, now: float) -> None:
        """A connector of this tunnel can be reached now: those who wait for one are served."""
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if one.tunnel == tunnel and self._connect(one.member, one.ask, tunnel, now):
                one.member.asks -= 1
            else:
                self._waiting.append(one)

    def _refuse(self, member: Member, ask: say.Ask, reason: Reason) -> None:
        self.counters[f"no_circuit_{reason.word}"] += 1
        self._messages.append((member, say.NoCircuit(ask.request, reason.code)))

    def _own(self, member: Member, id: bytes) -> tuple[Circuit, Slot] | tuple[None, None]:
        for slot in member.slots.values():
            if id in slot.circuits:
                return slot.circuits[id], slot
        return None, None

    def _end(self, circuit: Circuit, code: int, told: tuple[Slot, ...]) -> None:
        self.table.pop(frames.header(circuit.id), None)
        for slot in (circuit.agent, circuit.connector):
            slot.circuits.pop(circuit.id, None)
        for slot in told:
            if slot.member is None:
                slot.missed[circuit.id] = code
            else:
                self._tell(slot, say.Drop(circuit.id, code))

    def _forget(self, slot: Slot, reason: Reason) -> None:
        """The slot is over, and its circuits with it."""
        for circuit in list(slot.circuits.values()):
            self._end(circuit, reason.code, (circuit.far(slot),))
        self._bindings.slots.pop(slot.id, None)
        owned = self._of_node.get(slot.node, [])
        owned.remove(slot)
        if not owned:
            self._of_node.pop(slot.node, None)
        if slot.member is not None:
            slot.member.slots.pop(slot.index, None)

    # ---- packets ----

    def handle_control(self, data: Buffer, address: Address, now: float) -> None:
        """A circuit control packet from anybody. Any bytes are allowed."""
        reply, change = self._bindings.handle(data, address, now)
        if reply is not None and (len(reply) > HINT_LENGTH or self._hint_allowed(address, now)):
            self._packets.append((address, reply))
        if change is not None:
            self._changed(change, now)

    def stray(self, header: bytes, length: int, address: Address, now: float) -> None:
        """A data packet whose sender does not own the slot, or whose circuit is not known: a hint at most."""
        known = header in self.table
        self.counters["strays" if known else "unknown_circuits"] += 1
        if length >= HINT_LENGTH and self._hint_allowed(address, now):
            kind = frames.REBIND if known else frames.UNKNOWN
            self._packets.append((address, frames.hint(kind, header[1 : 1 + ID])))

    def _hint_allowed(self, address: Address, now: float) -> bool:
        allowed = self._hints.take(address, now)
        self.counters["hints" if allowed else "hints_withheld"] += 1
        return allowed

    def _changed(self, change: Change, now: float) -> None:
        """The other end of each circuit hears of a new address, both ends of a new size."""
        slot = change.slot
        for circuit in slot.circuits.values():
            circuit.left, circuit.right = circuit.agent.address, circuit.connector.address
            other = circuit.far(slot)
            if change.address and slot.generation > 1:
                self._tell(other, say.FarMoved(circuit.id, change.moved or bool(slot.how & 1)))
            size = min(slot.size, other.size) - HEADER
            if size != circuit.size:
                circuit.size = size
                self._tell(slot, say.Resized(circuit.id, size))
                self._tell(other, say.Resized(circuit.id, size))
        member = slot.member
        if slot.generation == 1 and member is not None and member.role == "connector":
            self._retry(member.tunnel, now)

    # ---- time ----

    def poll_timeout(self) -> tuple[float, Timer]:
        at, what = self._sweep_at, Timer.SWEEP
        if self._beats_at < at:
            at, what = self._beats_at, Timer.BEATS
        if self._waiting and self._waiting[0].until < at:
            at, what = self._waiting[0].until, Timer.ASK
        return at, what

    def handle_timeout(self, now: float) -> None:
        while self._waiting and self._waiting[0].until <= now:
            one = self._waiting.popleft()
            one.member.asks -= 1
            self._refuse(one.member, one.ask, Reason.TUNNEL_DOWN)
        if now >= self._beats_at:
            late, self._beats_at = now - self._beats_at, now + BEATS
            if late < BEATS:  # else it is we who stood still, and have not read yet what came meanwhile
                self._look_for_silence(now)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            for slot in list(self._bindings.slots.values()):
                self._look_at(slot, now)

    def _look_for_silence(self, now: float) -> None:
        for there in self._connectors.values():
            for connector in there:
                if not connector.silent and now - connector.heard > MISSED:
                    connector.silent = True
                    self.counters["silent_connectors"] += 1
                    for slot in connector.slots.values():
                        self._tell_away(slot)

    def _look_at(self, slot: Slot, now: float) -> None:
        if slot.member is None and now - slot.gone_at > self.limits.hold:
            self._forget(slot, Reason.PEER_GONE)
            return
        traffic = sum(c.from_agent if slot is c.agent else c.from_connector for c in slot.circuits.values())
        if traffic != slot.traffic:
            slot.active_at, slot.away = now, False
        slot.traffic = traffic
        if not slot.away and slot.circuits and now - slot.active_at > AWAY:
            self._tell_away(slot)

    def _tell_away(self, slot: Slot) -> None:
        slot.away = True
        for circuit in slot.circuits.values():
            self._tell(circuit.far(slot), say.FarAway(circuit.id))

    # ---- outputs ----

    @property
    def has_messages(self) -> bool:
        return bool(self._messages)

    def poll_message(self) -> tuple[Member, say.ToNode] | None:
        """The next message to an attachment."""
        return self._messages.popleft() if self._messages else None

    def poll_transmit(self) -> tuple[Address, bytes] | None:
        """The next control packet, to be sent from the switch's port."""
        return self._packets.popleft() if self._packets else None

    def _tell(self, slot: Slot, message: say.ToNode) -> None:
        if slot.member is not None:
            self._messages.append((slot.member, message))

    # ---- ids ----

    def _new_id(self, taken: dict[bytes, Slot]) -> bytes:
        while (id := self._random(ID)) in taken:
            pass
        return id

    def _new_circuit_id(self) -> bytes:
        while frames.header(id := self._random(ID)) in self.table:
            pass
        return id
