"""What the parts of the API share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from warren.edge.api.live import Live
from warren.edge.store.repository import Repository


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this edge is. `certificate`: DER of the network certificate, by which new tunnels are verified."""

    fingerprint: str
    """Of the network certificate, as commands show it."""
    certificate: bytes
    edges: tuple[str, ...]
    """Where the network's edges are reached: HOST:PORT, with brackets around an IPv6 address."""
    own: str = ""
    """Id of this edge."""


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to each part when the app is made. `now`: Unix time in seconds."""

    repository: Repository
    live: Live
    identity: Identity
    now: Callable[[], float]

    def seconds(self) -> int:
        """Whole seconds, as the store keeps them."""
        return int(self.now())


class Body(BaseModel):
    """Base of request bodies: unknown fields and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
