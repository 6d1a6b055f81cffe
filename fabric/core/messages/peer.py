"""An end-to-end connection between agent and connector: proof, flows, credit, names (protocol.md, section 5).

The connector's `Greeting` comes on a unidirectional stream; the agent opens one bidirectional control stream and says
`Prove` first. Each TCP flow is a bidirectional stream of its own: `Open` from the agent, `Opened` or `Refused` from the
connector, then raw bytes both ways. Ends are positions, told on the control stream: a reset never overtakes data.
"""

from __future__ import annotations

from typing import Literal

from warren.fabric.core.messages import Codec, Message

LABEL = b"warren-peer/1 proof"


class Prove(Message, frozen=True):
    """Agent → connector, first on the control stream."""

    key: bytes
    signature: bytes
    """Over LABEL ‖ challenge ‖ SHA-256(the connector's leaf)."""
    peer: bytes
    """The peer connection's random id, as the switch was told."""
    version: int = 1


class Proved(Message, frozen=True):
    """Connector → agent."""


class Open(Message, frozen=True):
    """Agent → connector, first on a flow's stream."""

    flow: bytes
    """128 random bits."""
    grant: bytes
    protocol: Literal["tcp", "udp", "icmp"]
    port: int
    address: str = ""
    host: str = ""


class Opened(Message, frozen=True):
    """Connector → agent: the origin has accepted."""

    address: str = ""
    """The origin's address, where a name was asked for."""


class Refused(Message, frozen=True):
    """Connector → agent: it has not, or we do not."""

    reason: int
    detail: str = ""


class Credit(Message, frozen=True):
    """Either way: you may have written up to `offset` bytes in all on this flow."""

    flow: bytes
    offset: int


class Ended(Message, frozen=True):
    """Either way: my direction of this flow ends after `offset` bytes."""

    flow: bytes
    how: Literal["end", "reset"]
    offset: int


class Unreachable(Message, frozen=True):
    """Connector → agent: the origin of a UDP flow says that nobody listens there, or its host is not there."""

    flow: bytes
    reason: int


class Resolve(Message, frozen=True):
    """Agent → connector: ask your resolver. `message` is a whole DNS query; the grant is for the name in it.

    With a grant for UDP to an address, that name server is asked instead.
    """

    request: int
    grant: bytes
    message: bytes


class Resolved(Message, frozen=True):
    """Connector → agent: its answer, a whole DNS message, or why not."""

    request: int
    message: bytes = b""
    reason: int = 0


ToConnector = Prove | Credit | Ended | Resolve
ToAgent = Proved | Refused | Credit | Ended | Unreachable | Resolved
OnStream = Open | Opened | Refused

TO_CONNECTOR: Codec[ToConnector] = Codec(ToConnector)
TO_AGENT: Codec[ToAgent] = Codec(ToAgent)
ON_STREAM: Codec[OnStream] = Codec(OnStream, 16_384)
