"""A switch and nodes' slots under a virtual clock: links with delay and loss, NATs, somebody who injects."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable

from warren.edge.switch.circuits import Circuits
from warren.edge.switch.model import Admission, Limits, Member
from warren.fabric.core import frames
from warren.fabric.core.engine import Address
from warren.fabric.core.messages import attachment as say
from warren.fabric.core.reasons import Reason
from warren.fabric.core.slot import Slot, SlotBound, SlotEvent, Verify

MALLORY: Address = ("203.0.113.66", 6666)
PASS = b"pass"


class Node:
    """One slot behind a NAT: whatever it sends comes from `address`."""

    def __init__(self, world: World, name: str, slot: Slot, member: Member, address: Address) -> None:
        self.world, self.name, self.slot, self.member, self.address = world, name, slot, member, address
        self.mtu = 1500
        self.up = True
        self.events: list[SlotEvent] = []
        self.got: list[bytes] = []
        self.sent: Counter[int] = Counter()

    def bounds(self) -> list[SlotBound]:
        return [event for event in self.events if isinstance(event, SlotBound)]

    def verifies(self) -> int:
        return sum(isinstance(event, Verify) for event in self.events)

    def flush(self) -> None:
        while (packet := self.slot.poll_transmit()) is not None:
            self.sent[packet[8]] += 1
            self.send(packet)
        while (event := self.slot.poll_event()) is not None:
            self.events.append(event)
        due = self.slot.poll_timeout()
        if due is not None:
            self.world.at(due[0], self.wake)

    def wake(self) -> None:
        due = self.slot.poll_timeout()
        if due is not None and due[0] <= self.world.now:
            self.slot.handle_timeout(self.world.now)
            self.flush()

    def send(self, packet: bytes) -> None:
        for tap in self.world.taps:
            tap(self, packet)
        if self.up and len(packet) + 48 <= self.mtu:
            self.world.to_switch(packet, self.address)

    def receive(self, packet: bytes) -> None:
        self.got.append(packet)
        if packet[0] == frames.CONTROL:
            self.slot.handle_control(packet, self.world.now)
            self.flush()
        else:
            self.slot.authenticated(self.world.now)
            self.flush()


class World:
    def __init__(self, seed: int = 0, delay: float = 0.01, loss: float = 0.0, limits: Limits | None = None) -> None:
        self.random = random.Random(seed)
        self.now, self.delay, self.loss = 100.0, delay, loss
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.nodes: list[Node] = []
        self.taps: list[Callable[[Node, bytes], None]] = []
        self.messages: list[tuple[Member, say.ToNode]] = []
        self.to_mallory: list[bytes] = []
        self.from_mallory = 0
        self.alive = True
        self.limits = limits
        self.start()

    def start(self) -> None:
        """A switch that knows nothing: at first, and after a restart."""

        def permitted(permit: bytes, key: bytes) -> str | Reason:
            return "tunnel" if permit == PASS else Reason.BAD_GRANT

        self.switch = Circuits(self.random.randbytes(16), permitted, self.random.randbytes, self.now, self.limits)

    def node(self, name: str, address: Address, role: str = "agent") -> Node:
        key = name.encode().ljust(32)
        admission = (
            Admission(key, "agent", key[:16]) if role == "agent" else Admission(key, "connector", key[:16], "tunnel")
        )
        member = self.switch.attach(admission, (), self.now)
        given = member.slots[0]
        node = Node(self, name, Slot(0, given.id, given.key, self.now), member, address)
        self.nodes.append(node)
        node.flush()
        self.drain()
        return node

    def at(self, time: float, call: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.heap, (max(time, self.now), self.count, call))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.heap and self.heap[0][0] <= until:
            self.now, _, call = heapq.heappop(self.heap)
            call()
        self.now = until

    def until(self, condition: Callable[[], bool], limit: float = 60.0) -> None:
        end = self.now + limit
        while not condition():
            assert self.now < end, "it did not come true"
            self.run(0.01)

    def to_switch(self, packet: bytes, source: Address, delay: float | None = None) -> None:
        if source == MALLORY:
            self.from_mallory += len(packet)
        if self.random.random() >= self.loss:
            wait = self.delay if delay is None else delay
            self.at(self.now + wait, lambda: self.arrive(packet, source))

    def arrive(self, packet: bytes, source: Address) -> None:
        if not self.alive:
            return
        if packet[0] == frames.CONTROL:
            self.switch.handle_control(packet, source, self.now)
        else:
            circuit = self.switch.table.get(packet[:8])
            if circuit is None or source not in (circuit.left, circuit.right):
                self.switch.stray(packet[:8], len(packet), source, self.now)
            elif (to := circuit.right if source == circuit.left else circuit.left) is not None:
                self.deliver(packet, to)
        self.drain()

    def drain(self) -> None:
        while (out := self.switch.poll_transmit()) is not None:
            self.deliver(out[1], out[0])
        while (message := self.switch.poll_message()) is not None:
            self.messages.append(message)

    def deliver(self, packet: bytes, to: Address) -> None:
        if to == MALLORY:
            self.to_mallory.append(packet)
        for node in self.nodes:
            if node.address == to and node.up and self.random.random() >= self.loss and len(packet) + 48 <= node.mtu:
                self.at(self.now + self.delay, lambda node=node: node.receive(packet))  # type: ignore[misc]

    def owner(self, node: Node) -> Address | None:
        """Where the switch sends this node's circuit traffic."""
        return self.switch._bindings.slots[node.slot.id].address

    def said(self, node: Node, kind: type) -> list[say.ToNode]:
        return [message for member, message in self.messages if member is node.member and isinstance(message, kind)]

    def connect(self, agent: Node, request: int = 1) -> bytes:
        """A circuit from this agent to a connector; its id."""
        self.switch.ask(agent.member, say.Ask(request, 0, b"p" * 16, PASS), self.now)
        self.drain()
        answer = self.said(agent, say.Circuit)[-1]
        assert isinstance(answer, say.Circuit)
        for node in self.nodes:
            node.slot.circuits(1)
            node.flush()
        return answer.circuit
