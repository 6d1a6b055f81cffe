"""What the store holds, as values. Times are Unix time in seconds; `revision`: the store's at the last change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Kind = Literal["ip", "host", "resolver"]
DEFAULT_NETWORK = "default"
"""The virtual network of devices and routes that name none."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A named way into a private network."""

    id: str
    name: str
    authority: bytes
    """DER of the tunnel's CA certificate."""
    statement: bytes
    """The network key's word on it."""
    signed: int
    """Revision inside that statement."""
    created: int
    revision: int
    former: bytes = b""
    """DER of the CA certificate before a rotation, which holds beside the new one until `until`; empty: none."""
    until: int = 0

    def admits(self, authority: bytes, signed: int, now: float) -> bool:
        """Whether connectors under the CA with this SHA-256, as a statement of revision `signed` has it, may be here.

        A statement newer than the store's is the word of the network key, too: an older store was restored.
        """
        if signed > self.signed or authority == hashlib.sha256(self.authority).digest():
            return True
        return now < self.until and authority == hashlib.sha256(self.former).digest()


@dataclass(frozen=True, slots=True)
class Route:
    """A destination that lies behind a tunnel."""

    id: str
    kind: Kind
    value: str
    """A CIDR, a hostname or a zone, as `values.cidr`, `values.hostname` and `values.zone` give them."""
    tunnel: str
    """The tunnel's id."""
    vnet: str
    comment: str
    created: int
    revision: int
    servers: tuple[str, ...] = ()
    """Of a resolver route: who answers for the zone, as `values.server` gives them."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that may enrol, or has."""

    id: str
    name: str
    thumbprint: str
    """SHA-256 of its public key in hex; "" until it has enrolled."""
    host: str
    """What it calls itself, for people only."""
    vnet: str
    """The virtual network that it is in now."""
    user: str
    groups: tuple[str, ...]
    tags: tuple[str, ...]
    created: int
    expires: int
    """When its enrolment key stops working."""
    enrolled: int
    """0: not yet."""
    seen: int
    """0: never. Changes without a new revision."""
    revision: int
    home: str = ""
    """The virtual network that the administrator put it in; "": the one that it is in."""
    vnets: tuple[str, ...] = ()
    """Others that its user may choose."""

    @property
    def choices(self) -> tuple[str, ...]:
        """Virtual networks that its user may choose, home first."""
        home = self.home or self.vnet
        return (home, *(name for name in self.vnets if name != home))


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Something that was deleted: flows that it allowed have to end. `kind`: tunnel, route or device."""

    id: str
    kind: str
    revision: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Change:
    """What the step to a new snapshot touched. `changed`: ids of what was added or altered."""

    changed: frozenset[str] = frozenset()
    deleted: tuple[Tombstone, ...] = ()
    everything: bool = False
    """Read anew as a whole (start, another process wrote, new epoch): take all of it for changed."""
