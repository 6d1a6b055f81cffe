"""A TCP flow's journey: held SYN → decision → peer connection → opened → the SYN goes on → pump.

Whatever is in the way is answered to the app as its origin would (agent/capture/answers.py).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Protocol

import structlog

from warren.agent.capture.capture import Capture
from warren.agent.capture.headers import FlowKey
from warren.agent.decisions import Decisions
from warren.agent.opening import Opening, Wanted
from warren.agent.peer_state import PeerState
from warren.agent.peers import Peers
from warren.fabric.aio.pump import Pump
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.messages.session import Granted
from warren.fabric.core.reasons import Reason

log = structlog.get_logger()

ASK_AGAIN = frozenset({Reason.STALE_GRANT, Reason.GRANT_EXPIRED, Reason.PEER_GONE, Reason.DRAINING})
"""Reasons after which the SYN is held on, and everything asked for once more: a connector may have left meanwhile."""
REFUSALS = 64
"""Last refusals, and last flows that ended, that status shows."""


class Names(Protocol):
    """Which name stands behind a synthetic address (agent/names.py)."""

    def name_of(self, address: bytes) -> str | None: ...

    def is_synthetic(self, address: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A flow that did not open, for status."""

    at: float
    destination: str
    reason: Reason
    detail: str


class TcpFlow:
    """One flow of the capture's."""

    def __init__(self, journey: TcpJourney, key: FlowKey, host: str) -> None:
        self.journey = journey
        self.key = key
        self.host = host
        self.began = time.time()
        self.opening: Opening | None = None
        self.granted: Granted | None = None
        self.task: asyncio.Task[None] | None = None
        self.pump: Pump | None = None
        self.flow: Flow | None = None
        self.carrier: PeerState | None = None
        """The peer connection that it had, once it is over."""
        self.sent = self.received = 0
        """Bytes, once it is over."""
        self.origin = ""
        self.over = 0.0
        """When it ended; 0: not yet."""
        self.retried = False
        """It was asked for once more already."""

    @property
    def destination(self) -> str:
        return f"{self.host or self.address}:{self.key.destination_port}"

    @property
    def address(self) -> str:
        """The destination as the judge is asked: empty where a name stands behind it."""
        return "" if self.host else str(ipaddress.ip_address(self.key.destination))

    def leave(self) -> None:
        """It is over: what status shows of it stays. All else would hold it, and be held by it, until the interpreter
        looks for circles, which is hardly ever."""
        if self.opening is not None:
            self.carrier = self.opening.state
        if self.pump is not None:
            self.sent, self.received = self.pump.bytes_out, self.pump.bytes_in
        self.opening = self.pump = self.flow = self.task = None

    # ---- peers.FlowOwner ----

    def datagram(self, payload: bytes) -> None:
        pass

    def unreachable(self, reason: Reason) -> None:
        pass

    def opened(self, flow: Flow, address: str) -> None:
        self.flow, self.origin = flow, address
        self.journey.capture.release(self.key)

    def refused(self, reason: Reason, detail: str) -> None:
        self.journey.refused(self, reason, detail)

    def readable(self, flow: Flow) -> None:
        if self.pump is not None:
            self.pump.handle_readable()

    def writable(self, flow: Flow) -> None:
        if self.pump is not None:
            self.pump.handle_writable()


class TcpJourney:
    """All TCP flows of the agent; the capture's handler for them."""

    def __init__(self, capture: Capture, decisions: Decisions, peers: Peers, names: Names) -> None:
        self.capture = capture
        self.flows: dict[FlowKey, TcpFlow] = {}
        self.refusals: deque[Refusal] = deque(maxlen=REFUSALS)
        self.refusal_counts: Counter[Reason] = Counter()
        self.ended: deque[TcpFlow] = deque(maxlen=REFUSALS)
        self.opened = 0
        self._decisions = decisions
        self._peers = peers
        self._names = names

    # ---- from the capture ----

    def syn(self, key: FlowKey) -> None:
        host = self._names.name_of(key.destination) or ""
        flow = self.flows[key] = TcpFlow(self, key, host)
        if not host and self._names.is_synthetic(key.destination):
            self.refused(flow, Reason.HOST_UNREACHABLE, "no name stands behind that synthetic address any more")
            return
        flow.task = asyncio.create_task(self._open(flow))

    def cancelled(self, key: FlowKey) -> None:
        flow = self.flows.pop(key, None)
        if flow is None:
            return
        if flow.task is not None:
            flow.task.cancel()
        if flow.pump is not None:
            flow.pump.abandon()
        elif flow.flow is not None and flow.opening is not None:
            flow.flow.reset()
            flow.opening.flush()
            flow.opening.settled()
        elif flow.opening is not None:
            flow.opening.cancel()
        flow.leave()

    def accepted(self, key: FlowKey, sock: socket.socket) -> None:
        flow = self.flows.get(key)
        if flow is None or flow.flow is None or flow.opening is None:
            sock.close()
            self.capture.forget(key)
            return
        self.opened += 1
        flush = flow.opening.flush
        flow.pump = Pump(sock, flow.flow, flush, lambda _: self._done(flow))
        flow.pump.start()
        flush()

    # ---- the journey ----

    async def _open(self, flow: TcpFlow, *, again: bool = False) -> None:
        try:
            port = flow.key.destination_port
            granted = await self._decisions.grant("tcp", port, address=flow.address, host=flow.host, fresh=again)
        except DeniedError as error:
            self.refused(flow, error.reason, error.detail)
            return
        flow.granted = granted
        message = Open(os.urandom(16), granted.grant, "tcp", port, address=flow.address, host=flow.host)
        opening = self._peers.open(Wanted(granted, message, flow))
        if self.flows.get(flow.key) is flow:  # it was not refused at once
            flow.opening = opening

    def refused(self, flow: TcpFlow, reason: Reason, detail: str) -> None:
        if reason in ASK_AGAIN and not flow.retried:
            self._decisions.forget()
            flow.granted, flow.opening, flow.retried = None, None, True
            flow.task = asyncio.create_task(self._open(flow, again=True))
            return
        log.debug("flow refused", destination=flow.destination, reason=reason.word, detail=detail)
        self.flows.pop(flow.key, None)
        self.note(Refusal(time.time(), flow.destination, reason, detail))
        self.capture.refuse(flow.key, reason)
        flow.leave()

    def note(self, refusal: Refusal) -> None:
        """For status and metrics; of every protocol."""
        self.refusals.append(refusal)
        self.refusal_counts[refusal.reason] += 1

    def _done(self, flow: TcpFlow) -> None:
        if self.flows.pop(flow.key, None) is not None:
            flow.over = time.time()
            self.ended.append(flow)
        if flow.opening is not None:
            flow.opening.settled()
        self.capture.forget(flow.key)
        flow.leave()

    def end(self, flow: TcpFlow, reason: Reason) -> None:
        """Ends a flow from here: a reset for the app, or an answer to its held SYN."""
        if flow.pump is not None:
            flow.pump.abandon()
            return
        self.cancelled(flow.key)
        self.note(Refusal(time.time(), flow.destination, reason, ""))
        self.capture.refuse(flow.key, reason)

    def close(self) -> None:
        """Resets every flow, so that no app waits for an agent that is gone."""
        for flow in list(self.flows.values()):
            if flow.task is not None:
                flow.task.cancel()
            if flow.pump is not None:
                flow.pump.abandon()
            else:
                self.capture.refuse(flow.key, Reason.HOST_UNREACHABLE)
