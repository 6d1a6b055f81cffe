"""One peer connection of the agent, from the request for its circuit to its end: what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from warren.fabric.aio.peer_path import PeerPath
from warren.fabric.core.agent_peer import AgentPeer
from warren.fabric.core.engine import Limits
from warren.fabric.core.flow import Flow
from warren.fabric.core.reasons import Reason

if TYPE_CHECKING:
    from warren.agent.opening import Opening

PEER_LIMITS = Limits(idle_timeout=900.0, keep_alive=20.0, streams=1024, connection_window=256 << 20)
"""Idle time-out not below the hold times (protocol.md, section 3); windows above all that credit allows."""
STREAMS, DATAGRAMS = 0, 1
"""Index of the circuit sockets: TCP flows on the one, UDP and ICMP on the other, nothing shared but the host."""


@dataclass(eq=False, slots=True)
class PeerState:
    """One peer connection, from the request for its circuit to its end."""

    tunnel: str
    tunnel_name: str
    id: bytes
    index: int
    """STREAMS or DATAGRAMS."""
    permit: bytes
    """The newest pass for the tunnel."""
    avoids: frozenset[bytes] = frozenset()
    """Its connector has to be another than these."""
    path: PeerPath | None = None
    peer: AgentPeer | None = None
    boot: bytes = b""
    away: float | None = None
    """Since when the connector is said to be gone, by the loop's clock."""
    draining: bool = False
    renewing: bool = False
    """Another circuit is being asked for."""
    waiting: list[Callable[[AgentPeer | None, Reason], None]] = field(default_factory=list)
    openings: dict[Flow, Opening] = field(default_factory=dict)
    """Flows that are opening or open."""

    @property
    def gone(self) -> bool:
        """The connector is said to be gone, and nothing of it was heard since."""
        return self.away is not None and (self.path is None or self.path.heard <= self.away)

    @property
    def carries(self) -> str:
        """What for, in a word."""
        return "tcp" if self.index == STREAMS else "udp"

    @property
    def load(self) -> int:
        """Flows, also those that wait."""
        return len(self.openings) + len(self.waiting)

    def usable(self, tried: Collection[bytes]) -> bool:
        """New flows may be opened here, and it is not, nor will be, one of those connectors."""
        if self.gone or self.draining or (self.peer is not None and self.peer.closed):
            return False
        if self.path is not None and not self.path.counting:
            return False
        if self.boot:
            return self.boot not in tried and self.load < PEER_LIMITS.streams - 8
        # not connected yet: one that has to be another than some may come to nothing, and is for those who want that
        return set(tried) <= self.avoids if tried else not self.avoids
