"""UDP, and ICMP echo in the same way: first datagram → decision → peer connection of its own → opened → datagrams.

Datagrams that come before the flow is open wait here, few; what is more is dropped and counted. A flow ends when
nothing passed for IDLE seconds in which its connector was heard (a laptop that slept finds its flows as it left them);
the next datagram begins another. What the origin's host answers instead of data (nobody listens) becomes the ICMP error
that the app would have got beside it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal

import structlog

from warren.agent.capture.capture import Capture
from warren.agent.capture.headers import PROTOCOL_ICMP, FlowKey
from warren.agent.decisions import Decisions
from warren.agent.opening import Opening, Wanted
from warren.agent.peers import Peers
from warren.agent.tcp import Names, Refusal
from warren.fabric.aio.peer_path import PeerPath
from warren.fabric.core.echo import EXCEEDED, REPLY, Request, pack_request, read_answer
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.messages.session import Granted
from warren.fabric.core.reasons import Reason

log = structlog.get_logger()

FLOWS = 8192
"""UDP flows at once: a resolver that asks from a new port each time has some thousand; 2 KiB each."""
WAITING = 192 << 10
"""Bytes of one flow that wait for it to be opened, 64 more for each datagram: a second of 700 small ones."""
WAITING_ALL = 8 << 20
"""The same of all flows together."""
WAITING_EACH = 64
IDLE = 120.0
"""Seconds without a datagram either way (RFC 4787, REQ-5: not below two minutes)."""
IDLE_ECHO = 60.0
"""The same for ICMP (RFC 5508, REQ-2: not below one)."""
IDLE_DNS = 15.0
"""The same for port 53, where each question has a port of its own."""
SWEEP = 5.0


class UdpFlow:
    """One 5-tuple."""

    def __init__(self, journey: UdpJourney, key: FlowKey, host: str) -> None:
        self.journey = journey
        self.key = key
        self.host = host
        self.address = "" if host else str(ipaddress.ip_address(key.destination))
        self.began = time.time()
        self.retried = False
        """The judge was asked once more."""
        self.waiting: deque[bytes] | None = deque()
        self.held = 0
        self.opening: Opening | None = None
        self.path: PeerPath | None = None
        """Once it is open."""
        self.used = self.clock()
        """When a datagram passed last."""
        self.granted: Granted | None = None
        self.task: asyncio.Task[None] | None = None
        self.origin = ""
        self.sent = self.received = 0

    @property
    def protocol(self) -> Literal["udp", "icmp"]:
        return "icmp" if self.key.protocol == PROTOCOL_ICMP else "udp"

    @property
    def destination(self) -> str:
        port = f":{self.key.destination_port}" if self.protocol == "udp" else ""
        return f"{self.host or self.address}{port}/{self.protocol}"

    def clock(self) -> float:
        """Seconds, its connector's silences not counted."""
        return self.path.awake() if self.path is not None else self.journey.loop.time()

    @property
    def idle(self) -> float:
        """Seconds after which it is over."""
        if self.protocol == "icmp":
            return IDLE_ECHO
        return IDLE_DNS if self.key.destination_port == 53 else IDLE

    # ---- peers.FlowOwner ----

    def opened(self, flow: Flow, address: str) -> None:
        self.origin = address
        if self.opening is not None and self.opening.state is not None:
            self.path = self.opening.state.path
        self.used = self.clock()
        self.journey.opened(self)

    def refused(self, reason: Reason, detail: str) -> None:
        self.journey.refused(self, reason, detail)

    def readable(self, flow: Flow) -> None:
        if flow.ended is not None:
            self.journey.end(self)

    def writable(self, flow: Flow) -> None:
        pass

    def datagram(self, payload: bytes) -> None:
        self.used = self.clock()
        self.received += len(payload)
        if self.protocol == "icmp":
            self.journey.echoed(self.key, payload)
        else:
            self.journey.capture.send_datagram(self.key, payload)

    def unreachable(self, reason: Reason) -> None:
        self.journey.capture.unreachable(self.key, reason)


class UdpJourney:
    """All UDP flows of the agent."""

    def __init__(
        self,
        capture: Capture,
        decisions: Decisions,
        peers: Peers,
        names: Names,
        routers: tuple[bytes, ...] = (b"\x7f\0\0\1",),
    ) -> None:
        """`routers`: packed addresses, one of a family, by which we answer as a hop (none of the host's own: it would
        be dropped)."""
        self.capture = capture
        self._routers = {len(address): address for address in routers}
        self.flows: dict[FlowKey, UdpFlow] = {}
        self.counters: Counter[str] = Counter()
        self.on_refusal: Callable[[Refusal], None] = lambda refusal: None
        self._decisions = decisions
        self._peers = peers
        self._names = names
        self._touched: dict[Opening, None] = {}
        self._flushing = False
        self._held = 0
        self.loop = asyncio.get_running_loop()
        self._sweep = self.loop.call_later(SWEEP, self._look)

    def datagram(self, key: FlowKey, payload: bytes) -> None:
        """One datagram of an app's."""
        flow = self.flows.get(key) or self._new(key)
        if flow is None:
            return
        flow.used = flow.clock()
        flow.sent += len(payload)
        if flow.waiting is None:
            self._send(flow, payload)
        else:
            self._wait(flow, payload)

    def _wait(self, flow: UdpFlow, payload: bytes) -> None:
        size = len(payload) + WAITING_EACH
        if flow.waiting is None or flow.held + size > WAITING or self._held + size > WAITING_ALL:
            self.counters["dropped_waiting"] += 1
            return
        flow.waiting.append(payload)
        flow.held += size
        self._held += size

    def _let_go(self, flow: UdpFlow) -> deque[bytes]:
        """What waited is sent or thrown away; nothing waits any more."""
        waiting, flow.waiting = flow.waiting, None
        self._held -= flow.held
        flow.held = 0
        return waiting or deque()

    def echo(self, key: FlowKey, sequence: int, hops: int, data: bytes) -> None:
        """One ICMP echo request of an app's. The agent is a hop, as any router on the way."""
        if hops <= 1:
            self.capture.send_echo_error(
                key, sequence, EXCEEDED, 0, self._routers.get(len(key.source), key.destination)
            )
            return
        self.datagram(key, pack_request(Request(hops - 1, sequence, data)))

    def echoed(self, key: FlowKey, payload: bytes) -> None:
        """What became of an echo request; errors without a source are the origin's own."""
        answer = read_answer(payload)
        if answer is None:
            self.counters["dropped_malformed"] += 1
        elif answer.kind == REPLY:
            self.capture.send_echo_reply(key, answer.sequence, answer.data)
        else:
            source = answer.source if any(answer.source) else key.destination
            self.capture.send_echo_error(key, answer.sequence, answer.kind, answer.code, source)

    def _new(self, key: FlowKey) -> UdpFlow | None:
        host = self._names.name_of(key.destination) or ""
        if not host and self._names.is_synthetic(key.destination):
            self.capture.unreachable(key, Reason.HOST_UNREACHABLE)
            return None
        if len(self.flows) >= FLOWS:
            self.counters["dropped_limit"] += 1
            return None
        flow = self.flows[key] = UdpFlow(self, key, host)
        flow.task = asyncio.create_task(self._open(flow))
        return flow

    async def _open(self, flow: UdpFlow) -> None:
        port = flow.key.destination_port
        try:
            granted = await self._decisions.grant(flow.protocol, port, address=flow.address, host=flow.host)
        except DeniedError as error:
            self.refused(flow, error.reason, error.detail)
            return
        flow.granted = granted
        message = Open(os.urandom(16), granted.grant, flow.protocol, port, address=flow.address, host=flow.host)
        opening = self._peers.open(Wanted(granted, message, flow))
        if self.flows.get(flow.key) is flow:  # it was not refused at once
            flow.opening = opening

    def opened(self, flow: UdpFlow) -> None:
        for payload in self._let_go(flow):
            self._send(flow, payload)

    def _send(self, flow: UdpFlow, payload: bytes) -> None:
        if flow.opening is None or not flow.opening.send_datagram(payload):
            self.counters["dropped_full"] += 1
            return
        self._touched[flow.opening] = None
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Once for all datagrams that were read in one go."""
        self._flushing = False
        touched, self._touched = self._touched, {}
        for opening in touched:
            opening.flush()

    def refused(self, flow: UdpFlow, reason: Reason, detail: str) -> None:
        if reason in (Reason.STALE_GRANT, Reason.GRANT_EXPIRED):
            self._decisions.forget()
            if flow.waiting is not None and not flow.retried:
                flow.granted, flow.opening, flow.retried = None, None, True
                flow.task = asyncio.create_task(self._open(flow))
                return
        log.debug("flow refused", destination=flow.destination, reason=reason.word, detail=detail)
        self.flows.pop(flow.key, None)
        self._let_go(flow)
        self.counters[f"refused_{reason.word}"] += 1
        self.on_refusal(Refusal(time.time(), flow.destination, reason, detail))
        self.capture.unreachable(flow.key, reason)
        flow.opening = flow.task = None

    def end(self, flow: UdpFlow) -> None:
        """Idle, or ended by the connector."""
        if self.flows.get(flow.key) is flow:
            del self.flows[flow.key]
        if flow.task is not None:
            flow.task.cancel()
        opening, was_open = flow.opening, flow.waiting is None
        flow.opening = flow.task = flow.path = None  # which hold it, too
        self._let_go(flow)
        if opening is None:
            return
        if opening.flow is not None and was_open:
            opening.flow.reset()
            opening.settled()
        else:
            opening.cancel()
        opening.flush()

    def _look(self) -> None:
        self._sweep = self.loop.call_later(SWEEP, self._look)
        for flow in list(self.flows.values()):
            if flow.clock() - flow.used > flow.idle:
                self.end(flow)

    def close(self) -> None:
        self._sweep.cancel()
        for flow in list(self.flows.values()):
            self.end(flow)
