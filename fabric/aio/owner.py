"""Whose a node is: who it is towards edges, and whom it tells what happens."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.core.attachment import Identity as Shown
from warren.fabric.core.link import LinkReady
from warren.fabric.core.messages import session as say
from warren.fabric.core.messages.attachment import LABEL as ATTACH_LABEL
from warren.fabric.core.messages.attachment import Offer
from warren.fabric.core.messages.session import LABEL as SESSION_LABEL
from warren.fabric.core.reasons import Reason
from warren.fabric.core.session import Sign

if TYPE_CHECKING:
    from warren.fabric.aio.node import Node


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the node is, towards edges. `sign(label, challenge, leaf)` → signature."""

    role: Literal["agent", "connector"]
    key: bytes
    sign: Sign
    network: bytes
    """DER of the network certificate."""
    certificates: tuple[bytes, ...] = ()
    statement: bytes = b""
    host: str = ""
    program: str = ""
    boot: bytes = field(default_factory=lambda: os.urandom(16))
    """Of this process: the same towards every edge."""

    def attaching(self, boot: bytes) -> Shown:
        """What a switch is shown."""
        return Shown(self.role, boot, self.key, self.certificates, self.statement)

    def attach_signature(self, challenge: bytes, leaf: bytes) -> bytes:
        return self.sign(ATTACH_LABEL, challenge, leaf)

    def entering(self, boot: bytes, ready: LinkReady) -> say.Enter:
        """What a judge is told, signed for this connection."""
        signature = self.sign(SESSION_LABEL, ready.challenge, ready.leaf)
        proof = (self.key, signature, self.certificates, self.statement)
        return say.Enter(self.role, boot, *proof, self.host, self.program)


class Owner(Protocol):
    """What a node tells whoever runs it."""

    def connected(self) -> None:
        """Attached, and the judge has accepted us."""

    def disconnected(self, reason: Reason, detail: str) -> None: ...

    def forgotten(self, socket: CircuitSocket) -> None:
        """The switch was restarted and knows none of this socket's circuits: whoever asked for them asks again."""

    def revoked(self, revoked: say.Revoked, node: Node) -> None:
        """Connectors: what opens nothing any more, and ends what is open."""

    def edges(self, signed: bytes) -> None:
        """The network's list of edges, as this edge has it."""

    def silent(self, node: Node) -> None:
        """Its edge does not answer: whoever can use another one does. It may only be slow."""

    def network(self, network: say.Network) -> None:
        """Agent: what may be captured."""

    def welcomed(self, welcome: say.Welcome) -> None:
        """Connector: accepted."""

    def offered(self, offer: Offer, socket: CircuitSocket, identity: Identity) -> None:
        """Connector: an agent asks for a circuit. `identity`: the one that this attachment has shown."""

    def dropped(self, circuit: bytes, socket: CircuitSocket) -> None:
        """A circuit is over."""

    def away(self, circuit: bytes, socket: CircuitSocket) -> None:
        """The switch has lost the node at the other end of a circuit; it may come back."""
