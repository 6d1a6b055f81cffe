"""What a switch keeps: attachments, their slots, the circuits between them, and the bounds of all that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from warren.edge.switch.budget import Bucket
from warren.fabric.core.engine import Address
from warren.fabric.core.frames import SMALLEST


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one switch (docs/memory.md adds them up)."""

    hold: float = 900.0
    """Seconds for which slots and circuits outlive their attachment."""
    ask_wait: float = 5.0
    """Seconds for which an ask waits for a connector."""
    settling: float = 20.0
    """Seconds of a new process in which it waits longer, until they are over: what was attached to the one before comes
    back meanwhile. A node pauses for 15 at most between attempts (fabric/aio/node.py)."""
    asks: int = 1024
    asks_per_node: int = 16
    asks_per_second: float = 20.0
    """For each node: every ask costs the check of a signature."""
    asks_burst: float = 200.0
    circuits_per_agent: int = 128
    """For each of its slots."""
    circuits_per_connector: int = 16_384
    slots_per_node: int = 8
    """Two in use, and those of attachments of the same key that are held."""
    members: int = 10_000
    runs_per_second: float = 60_000.0
    """Token bucket for each circuit and direction, in batches: a third of what the switch does with lone packets."""
    runs_burst: float = 6_000.0


class Admission(NamedTuple):
    """What the proof of an attachment showed. `tunnel`: the connector's; agents: ""."""

    key: bytes
    role: Literal["agent", "connector"]
    boot: bytes
    tunnel: str = ""
    authority: bytes = b""
    """A connector's: SHA-256 of the tunnel CA that it showed, for the agent to know what to verify it by."""
    revision: int = 0
    """A connector's: of the statement on that CA."""


@dataclass(slots=True, eq=False)
class Slot:
    """One node's circuit socket, as the switch knows it."""

    id: bytes
    key: bytes
    index: int
    node: bytes
    """The node's key."""
    member: Member | None
    """The attachment that owns it now; None while none does."""
    active_at: float
    """When it was last bound, given, or seen to send (looked at every few seconds)."""
    address: Address | None = None
    counter: int = 0
    size: int = SMALLEST
    generation: int = 0
    how: int = 0
    away: bool = False
    """Its circuits' other ends were told that it is away."""
    gone_at: float = 0.0
    """When its attachment ended."""
    traffic: int = 0
    circuits: dict[bytes, Circuit] = field(default_factory=dict)
    missed: dict[bytes, int] = field(default_factory=dict)
    """Circuits that ended while nobody was attached, with the reason's code: at most those that it had."""


@dataclass(slots=True, eq=False)
class Member:
    """One proved attachment."""

    key: bytes
    role: Literal["agent", "connector"]
    boot: bytes
    tunnel: str
    heard: float
    """When it last said something."""
    authority: bytes = b""
    revision: int = 0
    silent: bool = False
    """A connector that missed its beats: it gets no new circuits until it is heard again."""
    slots: dict[int, Slot] = field(default_factory=dict)
    asks: int = 0
    """Those that wait."""
    budget: Bucket | None = None
    """Of its asks."""

    @property
    def load(self) -> int:
        """Circuits, over both slots."""
        return sum(len(slot.circuits) for slot in self.slots.values())


class Circuit:
    """One way between an agent and a connector: what the hot path needs in one look-up, and what belongs to it."""

    __slots__ = (
        "agent",
        "connector",
        "from_agent",
        "from_connector",
        "id",
        "left",
        "left_bucket",
        "left_runs",
        "peer",
        "permit",
        "right",
        "right_bucket",
        "right_runs",
        "size",
    )

    def __init__(
        self, id: bytes, agent: Slot, connector: Slot, peer: bytes, permit: bytes, limits: Limits, now: float
    ) -> None:
        self.id, self.agent, self.connector, self.peer, self.permit = id, agent, connector, peer, permit
        self.left, self.right = agent.address, connector.address
        self.from_agent = self.from_connector = 0
        """Bytes passed on, from either end."""
        self.left_runs = self.right_runs = 0
        self.left_bucket = Bucket(limits.runs_per_second, limits.runs_burst, now)
        self.right_bucket = Bucket(limits.runs_per_second, limits.runs_burst, now)
        self.size = 0

    def far(self, slot: Slot) -> Slot:
        """The other end's."""
        return self.connector if slot is self.agent else self.agent
