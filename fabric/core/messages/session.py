"""A node before the judge: devices, flows, names; nothing of circuits (protocol.md, section 4).

The node opens one bidirectional stream and says `Enrol` or `Enter` on it before anything else. Each DNS query
travels on a bidirectional stream of its own, as in DNS over QUIC (RFC 9250, section 4.2): one `Query`, one answer, both
ends finished.
"""

from __future__ import annotations

from typing import Literal

from warren.fabric.core.messages import Codec, Message

LABEL = b"warren-session/1 proof"
ENROL_LABEL = b"warren-session/1 enrol"

Protocol = Literal["tcp", "udp", "icmp"]


class Enrol(Message, frozen=True):
    """A new device → judge: the enrolment key's secret and the device's key. The stream ends with the answer."""

    secret: bytes
    key: bytes
    signature: bytes
    """With that key, over ENROL_LABEL ‖ challenge ‖ SHA-256(the edge's leaf)."""
    host: str = ""
    """The device's host name, for the administrator's eyes."""


class Enrolled(Message, frozen=True):
    """Judge → device."""

    device: str
    name: str


class Enter(Message, frozen=True):
    """Node → judge: who I am."""

    role: Literal["agent", "connector"]
    boot: bytes
    key: bytes
    signature: bytes
    certificates: tuple[bytes, ...] = ()
    statement: bytes = b""
    host: str = ""
    program: str = ""
    """Version of the program, for the administrator's eyes."""
    version: int = 1


class Refused(Message, frozen=True):
    """Judge → node: no session, or no enrolment."""

    reason: int
    detail: str = ""


class Network(Message, frozen=True):
    """Judge → agent: what the device may capture; sent after `Enter` and after every change."""

    device: str
    name: str
    vnet: str
    cidrs: tuple[str, ...]
    """CIDRs of the routes in the device's virtual network."""
    zones: tuple[str, ...]
    """Names that the judge is asked about: exact ones, and wildcards as `*.corp.internal`."""
    revision: int
    vnets: tuple[str, ...] = ()
    """Virtual networks that the device's user may choose, home first."""
    search: tuple[str, ...] = ()
    """Domains that short names are completed with."""


class Choose(Message, frozen=True):
    """Agent → judge: put this device in another of the virtual networks that the administrator allowed it."""

    request: int
    vnet: str


class Chosen(Message, frozen=True):
    """Judge → agent: done; a `Network` went before, if that changed anything. (`Denied` says why not.)"""

    request: int


class Welcome(Message, frozen=True):
    """Judge → connector: accepted; the keys that its grants will be signed with follow from the network certificate."""

    tunnel: str
    name: str
    edge: str
    """Id of the edge."""
    time: float
    """The edge's clock, seconds since 1970: grants are judged by it, kept going on CLOCK_BOOTTIME."""


class Edges(Message, frozen=True):
    """Judge → node: the network's list of edges, after the session has begun and whenever it has changed."""

    signed: bytes
    """Verified with the network key; one with a lower revision than the node has seen is ignored."""


class Revoked(Message, frozen=True):
    """Judge → connector: grants that name one of these ids and are older than its revision open nothing any more, and
    flows that stand on them end. Sent after `Welcome`, at once when something is deleted, and when the judge loses its
    store or has it back."""

    epoch: int
    """Of the store; a higher one than before: it was restored."""
    entries: tuple[tuple[str, int], ...] = ()
    """(id of device, route or tunnel, least revision)."""
    age: float = 0.0
    """Seconds for which the judge has not been able to read its store: what was deleted since, it does not know, and
    flows are not confirmed. 0: it can."""


class Holding(Message, frozen=True):
    """Connector → judge, when it enters: ids that its flows stand on. The judge revokes those that it does not know."""

    ids: tuple[str, ...]


class Decide(Message, frozen=True):
    """Agent → judge: may this flow open?"""

    request: int
    protocol: Protocol
    port: int
    address: str = ""
    """The destination address, if the app connected by address."""
    host: str = ""
    """The name behind a synthetic address, if it connected by name."""
    resolver: str = ""
    """Id of a resolver route, if the destination is a name server of it."""


class Granted(Message, frozen=True):
    """Judge → agent: yes."""

    request: int
    grant: bytes
    permit: bytes
    """The pass for the tunnel, which the switch asks for."""
    tunnel: str
    tunnel_name: str
    authority: bytes
    """DER of the tunnel's CA certificate."""
    statement: bytes
    """The network key's word on it: {tunnel id, SHA-256 of that certificate, revision}."""
    route: str
    """Id of the route that allowed it, for status."""
    former: bytes = b""
    """DER of the CA certificate before `authority`, while it holds, too: the statement names it, and until when."""


class Denied(Message, frozen=True):
    """Judge → agent: no, and why."""

    request: int
    reason: int
    detail: str = ""


class Health(Message, frozen=True):
    """Connector → judge: once a second."""

    flows: int
    draining: bool = False


class Query(Message, frozen=True):
    """The only message on a stream of its own: a DNS message, and how the app sent it (udp: answers may be cut)."""

    message: bytes
    transport: Literal["udp", "tcp"] = "udp"


class HostRoute(Message, frozen=True):
    """Answer on such a stream: the name is under a hostname route; ask the connector whether it exists.

    With `servers` it is in the zone of a resolver route: their answer, asked for through the connector, is the answer.
    """

    route: str
    host: str
    vnet: str
    servers: tuple[str, ...] = ()
    """ADDRESS or ADDRESS:PORT, in the order in which they are asked."""


class Answer(Message, frozen=True):
    """Answer on such a stream: a whole DNS message."""

    message: bytes


ToJudge = Enrol | Enter | Decide | Choose | Health | Holding | Query
ToNode = Enrolled | Refused | Network | Chosen | Welcome | Edges | Revoked | Granted | Denied | HostRoute | Answer

TO_JUDGE: Codec[ToJudge] = Codec(ToJudge)
TO_NODE: Codec[ToNode] = Codec(ToNode, 1 << 20)
