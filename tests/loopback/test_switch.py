"""The switch on real sockets: slots bound, whole batches passed on between nodes, segments kept apart by the kernel."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from warren.edge.switch.circuits import Circuits
from warren.edge.switch.forward import UDP_SEGMENT, Forwarder, read_ancillary
from warren.edge.switch.model import Admission, Member
from warren.fabric.aio.udp import open_socket
from warren.fabric.core import frames
from warren.fabric.core.messages.attachment import Ask, Circuit
from warren.fabric.core.slot import Slot

LIMIT = 10.0
"""Seconds after which a condition counts as never coming true."""


class Node:
    """One circuit socket with its slot."""

    def __init__(self, member: Member, switch: tuple[str, int]) -> None:
        given = member.slots[0]
        self.member, self.switch = member, switch
        self.socket = open_socket(("127.0.0.1", 0))
        self.slot = Slot(0, given.id, given.key, time.monotonic())
        self.got: list[bytes] = []
        self.buffers = 0
        self.flush()

    def flush(self) -> None:
        while (packet := self.slot.poll_transmit()) is not None:
            self.socket.sendto(packet, self.switch)

    def send(self, parts: list[bytes], stride: int) -> None:
        self.socket.sendmsg(parts, [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", stride))], 0, self.switch)

    def read(self) -> None:
        buffer, ancillary, _, _ = self.socket.recvmsg(65_535, 128)
        stride = read_ancillary(ancillary)[0] or len(buffer)
        self.buffers += 1
        for at in range(0, len(buffer), stride):
            packet = buffer[at : at + stride]
            if packet[0] == frames.CONTROL:
                self.slot.handle_control(packet, time.monotonic())
            else:
                self.got.append(packet)
        self.flush()


class Town:
    def __init__(self) -> None:
        self.core = Circuits(bytes(16), lambda permit, key: "tunnel", os.urandom, time.monotonic())
        self.forwarder = Forwarder(self.core)
        self.socket = open_socket(("127.0.0.1", 0))
        self.nodes: list[Node] = []
        self.quic: Counter[bytes] = Counter()

    def node(self, name: bytes, role: str = "agent") -> Node:
        admission = Admission(name, "agent", name) if role == "agent" else Admission(name, "connector", name, "tunnel")
        member = self.core.attach(admission, (), time.monotonic())
        node = Node(member, self.socket.getsockname())
        self.nodes.append(node)
        return node

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        sockets: dict[int, Node] = {node.socket.fileno(): node for node in self.nodes}
        while not condition():
            assert time.monotonic() < end, "it did not come true"
            readable, _, _ = select.select([self.socket.fileno(), *sockets], [], [], 0.05)
            for one in readable:
                if one == self.socket.fileno():
                    self.forwarder.serve(self.socket, time.monotonic, lambda data, *_: self.quic.update([data]))
                else:
                    sockets[one].read()

    def connect(self, agent: Node) -> bytes:
        self.core.ask(agent.member, Ask(1, 0, b"p" * 16, b"pass"), time.monotonic())
        found = b""
        while (message := self.core.poll_message()) is not None:
            if isinstance(message[1], Circuit):
                found = message[1].circuit
        return frames.header(found)

    def close(self) -> None:
        for sock in (self.socket, *(node.socket for node in self.nodes)):
            sock.close()


@pytest.fixture
def town() -> Iterator[Town]:
    found = Town()
    yield found
    found.close()


def segment(header: bytes, number: int, size: int = 1452) -> bytes:
    return (header + number.to_bytes(4, "big")).ljust(size, b".")


def test_a_batch_goes_through_whole_both_ways(town: Town) -> None:
    connector, agent = town.node(b"connector", "connector"), town.node(b"agent")
    town.until(lambda: connector.slot.bound and agent.slot.bound)
    assert (agent.slot.size, connector.slot.size) == (1452, 1452)
    header = town.connect(agent)
    sent = [segment(header, n) for n in range(44)]
    sent[-1] = sent[-1][:700]
    for one, other in ((agent, connector), (connector, agent)):
        buffers = other.buffers
        one.send(sent, 1452)
        town.until(lambda other=other: len(other.got) >= 44)  # type: ignore[misc]
        assert other.got == sent
        assert other.buffers - buffers <= 2, "the kernel got it as a batch"


def test_circuits_mixed_in_one_buffer_reach_their_own_owners(town: Town) -> None:
    connector = town.node(b"connector", "connector")
    agents = [town.node(b"agent %d" % n) for n in range(3)]
    town.until(lambda: all(node.slot.bound for node in town.nodes))
    headers = [town.connect(agent) for agent in agents]
    connector.send([segment(headers[n % 3], n) for n in range(15)], 1452)
    town.until(lambda: sum(len(agent.got) for agent in agents) >= 15)
    for number, agent in enumerate(agents):
        assert agent.got == [segment(headers[number], n) for n in range(15) if n % 3 == number]
    agents[0].send([segment(headers[n % 3], n) for n in range(15)], 1452)
    town.until(lambda: len(connector.got) >= 5)
    assert connector.got == [segment(headers[0], n) for n in range(0, 15, 3)]
    assert not any(len(agent.got) > 5 for agent in agents)


def test_a_slot_that_moves_is_followed(town: Town) -> None:
    connector, agent = town.node(b"connector", "connector"), town.node(b"agent")
    town.until(lambda: connector.slot.bound and agent.slot.bound)
    header = town.connect(agent)
    agent.socket.close()
    agent.socket = open_socket(("127.0.0.1", 0))
    agent.socket.sendto(segment(header, 1), agent.switch)  # dropped; its hint makes the node bind
    town.until(lambda: agent.slot.bound and agent.slot.generation == 2)
    agent.socket.sendto(segment(header, 2), agent.switch)
    town.until(lambda: len(connector.got) >= 1)
    assert connector.got == [segment(header, 2)]


def test_quic_on_the_same_port_is_not_touched(town: Town) -> None:
    agent = town.node(b"agent")
    agent.socket.sendto(b"\xc3 an Initial", agent.switch)
    town.until(lambda: bool(town.quic))
    assert town.quic == {b"\xc3 an Initial": 1}
