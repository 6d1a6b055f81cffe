"""A node at a switch: circuits, and nothing of flows (protocol.md, sections 2 and 3).

The edge's `Greeting` comes on a unidirectional stream that the edge opens first; it serves both families of the
connection. The node opens one bidirectional stream for the attachment and says `Attach` on it before anything else.
"""

from __future__ import annotations

from typing import Literal

from warren.fabric.core.messages import Codec, Message

LABEL = b"warren-attach/1 proof"


class Greeting(Message, frozen=True):
    """Edge or connector → who opened the connection, first thing."""

    challenge: bytes
    """32 random bytes, to be signed."""
    boot: bytes
    """Boot id of the process: 16 random bytes for each start."""


class Attach(Message, frozen=True):
    """Node → switch: who I am. Families share the stream kinds, so it also says that this is an attachment."""

    role: Literal["agent", "connector"]
    boot: bytes
    key: bytes
    """Public half of the device key (agent) or of the leaf's key (connector), 32 raw bytes of Ed25519."""
    signature: bytes
    """Over LABEL ‖ challenge ‖ SHA-256(the edge's leaf)."""
    certificates: tuple[bytes, ...] = ()
    """Connector: DER of leaf and tunnel CA."""
    statement: bytes = b""
    """Connector: the network key's signature statement on the tunnel (identity/statements.py)."""
    slots: tuple[bytes, ...] = ()
    """Ids of slots of an earlier attachment at the same boot of the switch, to be taken over."""
    version: int = 1


class SlotGiven(Message, frozen=True):
    """One circuit socket's identity at this switch."""

    index: int
    """0: streams, 1: datagrams."""
    id: bytes
    """7 bytes."""
    key: bytes
    """16 bytes: key of the macs on circuit control."""
    circuits: tuple[bytes, ...] | None = None
    """An agent's: ids of the circuits that lead through it; any other has ended meanwhile. None: not said."""


class Attached(Message, frozen=True):
    """Switch → node: proof accepted."""

    boot: bytes
    slots: tuple[SlotGiven, ...]
    port: int = 0
    """UDP port of the circuits; 0: the same as the attachment's."""


class Rejected(Message, frozen=True):
    """Switch → node: no attachment; the connection is closed next."""

    reason: int


class Ask(Message, frozen=True):
    """Agent → switch: a circuit to a connector of a tunnel."""

    request: int
    index: int
    peer: bytes
    """Random id of the peer connection, 16 bytes."""
    permit: bytes
    """The judge's pass, encoded (identity/grants.py)."""
    boot: bytes = b""
    """Only to the connector process with this boot id (another circuit for a living peer connection)."""
    tried: tuple[bytes, ...] = ()
    """Boot ids of connectors that failed just now."""
    patient: bool = True
    """Whether to wait for a connector that is not there yet; else `NoCircuit` at once."""


class Offer(Message, frozen=True):
    """Switch → connector: an agent asks for a circuit to you."""

    circuit: bytes
    """7 bytes."""
    index: int
    size: int
    """Bytes that an engine may fill behind the header."""
    peer: bytes
    key: bytes
    """The agent's device key, as it proved it to this switch."""
    permit: bytes


class Circuit(Message, frozen=True):
    """Switch → agent: the circuit that you asked for."""

    request: int
    circuit: bytes
    size: int
    boot: bytes
    """The connector's boot id."""
    authority: bytes = b""
    """SHA-256 of the tunnel CA under which it showed itself; the agent takes it only for one that it believes."""


class NoCircuit(Message, frozen=True):
    """Switch → agent: none, and why."""

    request: int
    reason: int


class Drop(Message, frozen=True):
    """Either way: this circuit is over."""

    circuit: bytes
    reason: int = 0


class Resized(Message, frozen=True):
    """Switch → both ends: the smaller of the two slots has changed its size."""

    circuit: bytes
    size: int


class FarMoved(Message, frozen=True):
    """Switch → the other end of each circuit of a slot that has a new address."""

    circuit: bytes
    moved: bool
    """The node said that its network changed (engine: MOVED); else only the address did (REBOUND)."""


class FarAway(Message, frozen=True):
    """Switch → the other end: the slot has not been bound for 45 s, or its node's attachment is gone."""

    circuit: bytes


class Suspect(Message, frozen=True):
    """Node → switch → other node: large packets vanish on this circuit; bind anew."""

    circuit: bytes


class Beat(Message, frozen=True):
    """Nothing, answered by nothing but the transport: keeps an attachment alive and shows that it is."""


ToSwitch = Attach | Ask | Drop | Suspect | Beat
ToNode = Attached | Rejected | Offer | Circuit | NoCircuit | Drop | Resized | FarMoved | FarAway | Suspect

GREETING: Codec[Greeting] = Codec(Greeting, 1024)
TO_SWITCH: Codec[ToSwitch] = Codec(ToSwitch)
TO_NODE: Codec[ToNode] = Codec(ToNode)
