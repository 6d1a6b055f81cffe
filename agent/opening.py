"""One flow that an app wants, between the judge's grant and its end: tried at one connector after another until one
opens it or none is left."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from warren.agent.peer_state import PeerState
from warren.fabric.core.agent_peer import AgentPeer
from warren.fabric.core.flow import Flow
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.messages.session import Granted
from warren.fabric.core.reasons import Reason

TRIES = 4
"""Connectors that one opening is tried at."""
ELSEWHERE = frozenset(
    {
        Reason.HOST_UNREACHABLE, Reason.NET_UNREACHABLE, Reason.NO_SUCH_NAME, Reason.RESOLVER_FAILED, Reason.CEILING,
        Reason.RESERVED_ADDRESS, Reason.LIMIT, Reason.INTERNAL, Reason.DRAINING, Reason.PEER_GONE,
    }
)  # fmt: skip
"""Answers of one connector that another one may not share: where it stands, what it allows, how full it is. A refusal
by the origin itself is the origin's answer; a time-out has left the app no time to try again."""


class FlowOwner(Protocol):
    """Who asked for a flow."""

    def opened(self, flow: Flow, address: str) -> None: ...

    def refused(self, reason: Reason, detail: str) -> None: ...

    def readable(self, flow: Flow) -> None: ...

    def writable(self, flow: Flow) -> None: ...

    def datagram(self, payload: bytes) -> None:
        """UDP and ICMP: what the origin sent."""

    def unreachable(self, reason: Reason) -> None:
        """UDP: the origin says that it is not there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A flow to be opened: what the judge granted, where to, for whom."""

    granted: Granted
    message: Open
    owner: FlowOwner


class Connections(Protocol):
    """The agent's peer connections (agent/peers.py)."""

    def begin(self, opening: Opening) -> None: ...

    def alone(self, state: PeerState) -> bool: ...

    def flush(self, state: PeerState) -> None: ...


class Opening:
    """One flow between grant and `opened`; `cancel` when the app gives up."""

    def __init__(self, peers: Connections, wanted: Wanted) -> None:
        self.wanted = wanted
        self.owner = wanted.owner
        self.tried: set[bytes] = set()
        """Boot ids of connectors that said no."""
        self.flow: Flow | None = None
        self._peers = peers
        self._cancelled = False
        self._peer: AgentPeer | None = None
        self._state: PeerState | None = None
        self._first: tuple[Reason, str] | None = None
        """What the first connector answered: the app hears that, unless another one opens the flow."""

    def start(self, state: PeerState, peer: AgentPeer | None, reason: Reason) -> None:
        """The peer connection that it waited for is there, or came to nothing."""
        if self._cancelled:
            return
        if state.boot:
            self._state = state
        if peer is None:
            self.refused(reason, "")
            return
        self._peer = peer
        message = self.wanted.message
        flow = peer.open(message.flow, self.wanted.granted.grant, message)
        if flow is None:
            self.refused(Reason.LIMIT, "streams of one peer connection")
            return
        self.flow = flow
        state.openings[flow] = self
        self._peers.flush(state)

    def refused(self, reason: Reason, detail: str) -> None:
        """A connector said no, or none can be had: the others are tried before the app hears it."""
        state, self._state, self._peer, self.flow = self._state, None, None, None
        if self._first is None:
            self._first = reason, detail
        again = reason in ELSEWHERE and len(self.tried) < TRIES - 1
        if again and state is not None and not self._peers.alone(state):
            self.tried.add(state.boot)
            message = msgspec.structs.replace(self.wanted.message, flow=os.urandom(16))
            self.wanted = replace(self.wanted, message=message)
            self._peers.begin(self)
        else:
            self.owner.refused(*self._first)

    @property
    def state(self) -> PeerState | None:
        """The peer connection that carries the flow."""
        return self._state

    def cancel(self) -> None:
        """The app gave up before the origin answered."""
        self._cancelled = True
        if self._peer is not None and self.flow is not None and self._state is not None:
            self._state.openings.pop(self.flow, None)
            self._peer.cancel(self.flow)
            self._peers.flush(self._state)

    def send_datagram(self, payload: bytes) -> bool:
        """UDP and ICMP, once opened: False if it was dropped. `flush` after the last one."""
        if self._peer is None or self.flow is None:
            return False
        return self._peer.send_datagram(self.flow, payload)

    def settled(self) -> None:
        """The pump is done: both directions are over, as far as this side goes."""
        if self._peer is not None and self.flow is not None and self._state is not None:
            self._state.openings.pop(self.flow, None)
            self._peer.settled(self.flow)

    def flush(self) -> None:
        if self._state is not None:
            self._peers.flush(self._state)
