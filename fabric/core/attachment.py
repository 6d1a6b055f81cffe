"""A node at a switch: proof, slots, circuits asked for and offered, beats (protocol.md, sections 2 and 3).

On top of a `Link`: give it the link's events (`handle_link`), and it opens its control stream, proves itself and turns
what the switch says into events, which are the messages themselves. It knows nothing of flows, and of slots only what
the switch gives; `Slot` binds them.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from warren.fabric.core.engine import DATAGRAM_SIZES, StreamReset, StreamStopped
from warren.fabric.core.errors import WireError
from warren.fabric.core.frames import ID, KEY
from warren.fabric.core.link import Link, LinkClosed, LinkEvent, LinkReady
from warren.fabric.core.messages.attachment import (
    TO_NODE,
    TO_SWITCH,
    Ask,
    Attach,
    Attached,
    Beat,
    Circuit,
    Drop,
    FarAway,
    FarMoved,
    NoCircuit,
    Offer,
    Rejected,
    Resized,
    Suspect,
    ToNode,
    ToSwitch,
)
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream

PROOF_WAIT = 10.0
"""Seconds from the call to `Attached`; the switch keeps nobody unproved for longer."""
ASK_WAIT = 30.0
"""Seconds after which an ask counts as refused: longer than any switch lets it wait."""
ASKS = 64
"""Asks under way at once."""
BEAT = {"agent": 20.0, "connector": 1.0}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node shows at a switch."""

    role: Literal["agent", "connector"]
    boot: bytes
    """16 bytes."""
    key: bytes
    """Public key, 32 raw bytes of Ed25519."""
    certificates: tuple[bytes, ...] = ()
    statement: bytes = b""


class AttachmentClosed(NamedTuple):
    """The connection is over. `reason`: the switch's, if it gave one of ours; UNKNOWN for the transport's codes."""

    reason: Reason
    text: str
    ours: bool


class State(enum.Enum):
    CALLING = "calling"
    PROVING = "proving"
    ATTACHED = "attached"
    CLOSED = "closed"


_EDGES = {
    State.CALLING: {State.PROVING, State.CLOSED},
    State.PROVING: {State.ATTACHED, State.CLOSED},
    State.ATTACHED: {State.CLOSED},
    State.CLOSED: set[State](),
}


class Timer(enum.Enum):
    PROOF = "proof"
    BEAT = "beat"
    ASK = "ask"


AttachmentEvent = ToNode | AttachmentClosed


class Attachment:
    """One node's attachment to one switch, over one link."""

    def __init__(
        self,
        link: Link,
        identity: Identity,
        sign: Callable[[bytes, bytes], bytes],
        now: float,
        slots: tuple[bytes, ...] = (),
    ) -> None:
        """`sign(challenge, leaf DER)`: the signature with the attachment's label. `slots`: ids of slots of an earlier
        attachment at the same boot of the switch, to be taken over with their circuits."""
        self.state = State.CALLING
        self.boot = b""
        """The switch's boot id, once greeted."""
        self._link = link
        self._identity = identity
        self._sign = sign
        self._slots = slots
        self._control: MessageStream[ToNode, ToSwitch] | None = None
        self._deadline = now + PROOF_WAIT
        self._beat_at = now
        self._asked: dict[int, float] = {}
        self._next = 0
        self._events: deque[AttachmentEvent] = deque()

    # ---- the link ----

    def handle_link(self, event: LinkEvent, now: float) -> None:
        """Each event of `link.poll_event()`."""
        match event:
            case LinkReady(challenge, boot, leaf):
                self._prove(challenge, boot, leaf, now)
            case LinkClosed(code, text, ours) if self.state is not State.CLOSED:
                self._enter(State.CLOSED)
                for request in self._asked:
                    self._events.append(NoCircuit(request, Reason.JUDGE_AWAY.code))
                self._asked.clear()
                self._events.append(AttachmentClosed(Reason.of_close(code), text, ours))

    def _prove(self, challenge: bytes, boot: bytes, leaf: bytes, now: float) -> None:
        if self.state is not State.CALLING:
            return
        control = self._link.open(TO_NODE, TO_SWITCH, self)
        if control is None:
            self.close(Reason.PROTOCOL, now)
            return
        self.boot, self._control = boot, control
        self._enter(State.PROVING)
        me = self._identity
        signature = self._sign(challenge, leaf)
        control.send(Attach(me.role, me.boot, me.key, signature, me.certificates, me.statement, self._slots))

    def close(self, reason: Reason, now: float) -> None:
        """Ends the connection, and with it every family that shares it."""
        self._link.connection.close(reason.close_code, reason.text, now)

    # ---- what the node says ----

    def ask(
        self,
        index: int,
        peer: bytes,
        permit: bytes,
        now: float,
        *,
        boot: bytes = b"",
        tried: tuple[bytes, ...] = (),
        patient: bool = True,
    ) -> int | None:
        """Asks for a circuit for slot `index`; `Circuit` or `NoCircuit` with the returned number follows.

        None: not attached, or too many are under way. `peer`: the peer connection's id, 16 bytes; `permit`: the
        judge's pass; `boot`: only to that connector process; `tried`: boot ids of connectors that failed just now;
        `patient`: wait a little for one that is not there yet."""
        if self.state is not State.ATTACHED or len(self._asked) >= ASKS:
            return None
        self._next += 1
        self._asked[self._next] = now + ASK_WAIT
        self._say(Ask(self._next, index, peer, permit, boot, tried, patient), now)
        return self._next

    def cancel(self, request: int) -> None:
        """The answer is no longer wanted: a circuit that comes for it is dropped at once."""
        self._asked.pop(request, None)

    def drop(self, circuit: bytes, reason: Reason | None, now: float) -> None:
        """A circuit is over; also how a connector declines an offer. (It accepts by receiving.)"""
        self._say(Drop(circuit, reason.code if reason else 0), now)

    def suspect(self, circuit: bytes, now: float) -> None:
        """Large packets vanish on it: the other end binds too. (This end calls `Slot.suspect`.)"""
        self._say(Suspect(circuit), now)

    def beat(self, now: float) -> None:
        """Our address has changed, as a slot's binding shows: what the switch has to say finds us at the new one only
        when we have said something from there."""
        self._say(Beat(), now)

    def _say(self, message: ToSwitch, now: float) -> None:
        if self.state is State.ATTACHED and self._control is not None:
            try:
                self._control.send(message)
            except WireError as error:
                self._link.connection.close(Reason.PROTOCOL.close_code, str(error), now)
            self._beat_at = now + BEAT[self._identity.role]

    # ---- what the switch says (StreamHandler) ----

    def handle_readable(self, stream: int, now: float) -> None:
        if self._control is None:
            return
        for message in self._control.handle_readable():
            self._heard(message, now)
        if self._control.finished:
            raise WireError("the switch ended the attachment's stream")

    def handle_writable(self, stream: int, now: float) -> None:
        if self._control is not None:
            self._control.handle_writable()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        raise WireError("the switch reset the attachment's stream")

    def _heard(self, message: ToNode, now: float) -> None:
        check(message)
        match message:
            case Attached() if self.state is State.PROVING:
                self._enter(State.ATTACHED)
                self._beat_at = now + BEAT[self._identity.role]
            case Rejected() if self.state is State.PROVING:
                self.close(Reason.of(message.reason), now)
            case Attached() | Rejected():
                raise WireError(f"{type(message).__name__} out of turn")
            case Offer() if self._identity.role == "agent":
                raise WireError("a circuit was offered to an agent")
            case Circuit() if self._asked.pop(message.request, None) is None:
                self.drop(message.circuit, Reason.CANCELLED, now)
                return
            case NoCircuit() if self._asked.pop(message.request, None) is None:
                return
        self._events.append(message)

    # ---- contract ----

    def poll_event(self) -> AttachmentEvent | None:
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> tuple[float, Timer] | None:
        if self.state in (State.CALLING, State.PROVING):
            return self._deadline, Timer.PROOF
        if self.state is State.CLOSED:
            return None
        ask = min(self._asked.values(), default=self._beat_at)
        return (ask, Timer.ASK) if ask < self._beat_at else (self._beat_at, Timer.BEAT)

    def handle_timeout(self, now: float) -> None:
        due = self.poll_timeout()
        if due is None or due[0] > now:
            return
        if due[1] is Timer.PROOF:
            self._deadline = now + PROOF_WAIT
            self.close(Reason.TIMED_OUT, now)
        elif due[1] is Timer.BEAT:
            self._say(Beat(), now)
        else:
            for request in [request for request, at in self._asked.items() if at <= now]:
                del self._asked[request]
                self._events.append(NoCircuit(request, Reason.TUNNEL_DOWN.code))

    def _enter(self, state: State) -> None:
        if state not in _EDGES[self.state]:
            raise RuntimeError(f"an attachment went from {self.state} to {state}")
        self.state = state


def check(message: ToNode) -> None:
    """Lengths and ranges that the types don't say. Raises WireError."""
    match message:
        case Attached(slots=slots):
            wrong = [slot.index for slot in slots] != [0, 1] or any(
                len(slot.id) != ID or len(slot.key) != KEY or any(len(circuit) != ID for circuit in slot.circuits or ())
                for slot in slots
            )
        case Offer(size=size, peer=peer, index=index, circuit=circuit):
            wrong = size not in DATAGRAM_SIZES or len(peer) != 16 or index not in (0, 1) or len(circuit) != ID
        case Circuit(size=size, circuit=circuit) | Resized(size=size, circuit=circuit):
            wrong = size not in DATAGRAM_SIZES or len(circuit) != ID
        case Drop(circuit=circuit) | FarMoved(circuit=circuit) | FarAway(circuit=circuit) | Suspect(circuit=circuit):
            wrong = len(circuit) != ID
        case _:
            wrong = False
    if wrong:
        raise WireError(f"{type(message).__name__} with a field of a wrong length or range")
