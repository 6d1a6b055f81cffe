"""Both halves of an attachment: node and switch, joined in memory."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from tests.unit.fabric.core.pair import Side, face, pair
from warren.edge.switch.attachments import Attachment, Attachments
from warren.edge.switch.circuits import Circuits
from warren.edge.switch.model import Admission, Limits
from warren.fabric.core import frames
from warren.fabric.core.attachment import ASK_WAIT, AttachmentClosed, AttachmentEvent, Identity, State
from warren.fabric.core.attachment import Attachment as NodeAttachment
from warren.fabric.core.engine import Closed
from warren.fabric.core.frames import Challenge
from warren.fabric.core.link import Link, greet
from warren.fabric.core.messages.attachment import (
    LABEL,
    TO_NODE,
    TO_SWITCH,
    Attach,
    Attached,
    Circuit,
    Drop,
    FarAway,
    NoCircuit,
    Offer,
    Rejected,
    Suspect,
)
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import FirstMessage, MessageStream, StreamHandler, Streams

BOOT = b"S" * 16
LEAF = b"the edge's leaf"


def signature(key: bytes, challenge: bytes, leaf: bytes) -> bytes:
    return hashlib.blake2b(LABEL + challenge + hashlib.sha256(leaf).digest(), key=key).digest()


class Edge:
    """The switch's side, as the edge puts it together."""

    def __init__(self, limits: Limits | None = None) -> None:
        rnd = random.Random(5).randbytes
        self.core = Circuits(BOOT, lambda permit, key: permit.decode(), rnd, 0.0, limits)
        self.attachments = Attachments(self.core, self.admit)
        self.random = rnd
        self.sides: list[tuple[Side, Streams]] = []
        self.found: dict[Side, Attachment] = {}
        self.flushed = 0

    @staticmethod
    def admit(attach: Attach, challenge: bytes) -> Admission | Reason:
        if attach.signature != signature(attach.key, challenge, LEAF):
            return Reason.BAD_PROOF
        tunnel = "T" if attach.role == "connector" else ""
        return Admission(attach.key, attach.role, attach.boot, tunnel)

    def accept(self, side: Side, now: float) -> None:
        connection = face(side)
        challenge = self.random(32)

        def then(messages: MessageStream[Any, Any], message: Any, now: float) -> StreamHandler | None:
            if not isinstance(message, Attach):
                return None
            family = messages.become(TO_SWITCH, TO_NODE)
            found = self.found[side] = self.attachments.begin(
                family, message, challenge, flush=self.flush, close=lambda reason: close(reason), now=now
            )
            return found

        def close(reason: Reason) -> None:
            connection.close(reason.close_code, reason.text, now)

        streams = Streams(connection, lambda stream, *_: FirstMessage(streams, stream, TO_SWITCH, then))
        self.sides.append((side, streams))
        greet(connection, challenge, BOOT)

    def flush(self) -> None:
        self.flushed += 1

    def step(self, now: float) -> None:
        for side, streams in self.sides:
            for event in streams.drain(now):
                if isinstance(event, Closed) and side in self.found:
                    self.found[side].gone(now)
        self.attachments.flush(now)


class Home:
    """The node's side."""

    def __init__(
        self, edge: Edge, identity: Identity, now: float = 0.0, slots: tuple[bytes, ...] = (), key: bytes = b""
    ) -> None:
        client, server = pair(leaf=LEAF)
        self.edge, self.side = edge, client
        self.link = Link(face(client))
        secret = key or identity.key
        sign = lambda challenge, leaf: signature(secret, challenge, leaf)  # noqa: E731
        self.attachment = NodeAttachment(self.link, identity, sign, now, slots)
        self.events: list[AttachmentEvent] = []
        edge.accept(server, now)
        self.step(now)

    def step(self, now: float = 0.0) -> None:
        for _ in range(4):
            self.link.handle_connection(now)
            while (event := self.link.poll_event()) is not None:
                self.attachment.handle_link(event, now)
            self.edge.step(now)
        while (said := self.attachment.poll_event()) is not None:
            self.events.append(said)

    def slots(self) -> tuple[bytes, ...]:
        (attached,) = [event for event in self.events if isinstance(event, Attached)]
        return tuple(slot.id for slot in attached.slots)

    def bind(self, port: int) -> None:
        (attached,) = [event for event in self.events if isinstance(event, Attached)]
        slot, core, address = attached.slots[0], self.edge.core, ("10.0.0.1", port)
        core.handle_control(frames.bind(slot.id, slot.key, 1, False, 1452), address, 0.0)
        out = core.poll_transmit()
        assert out is not None
        challenge = frames.decode(out[1])
        assert isinstance(challenge, Challenge)
        core.handle_control(frames.answer(slot.id, slot.key, 1, False, challenge.cookie), address, 0.0)
        core.poll_transmit()


AGENT = Identity("agent", b"a" * 16, b"k" * 32)
CONNECTOR = Identity("connector", b"c" * 16, b"K" * 32)


def three() -> tuple[Edge, Home, Home]:
    edge = Edge()
    connector, agent = Home(edge, CONNECTOR), Home(edge, AGENT)
    connector.bind(2)
    agent.bind(1)
    return edge, agent, connector


def test_attached_with_two_slots() -> None:
    edge = Edge()
    agent = Home(edge, AGENT)
    (attached,) = agent.events
    assert isinstance(attached, Attached)
    assert attached.boot == agent.attachment.boot == BOOT
    assert agent.attachment.state is State.ATTACHED
    assert edge.attachments.counters == {"attached_agent": 1}
    assert edge.flushed


def test_a_wrong_signature_is_rejected_with_its_reason() -> None:
    edge = Edge()
    agent = Home(edge, AGENT, key=b"x" * 32)
    assert agent.events == [
        Rejected(Reason.BAD_PROOF.code),
        AttachmentClosed(Reason.BAD_PROOF, Reason.BAD_PROOF.text, True),
    ]
    assert not edge.core.members
    assert agent.attachment.poll_timeout() is None


def test_a_circuit_is_asked_for_offered_and_dropped() -> None:
    _, agent, connector = three()
    request = agent.attachment.ask(0, b"p" * 16, b"T", 0.0)
    agent.step()
    connector.step()
    answer, offer = agent.events[-1], connector.events[-1]
    assert isinstance(answer, Circuit)
    assert isinstance(offer, Offer)
    assert (answer.request, answer.circuit, answer.size) == (request, offer.circuit, 1444)
    assert offer.key == AGENT.key
    agent.attachment.suspect(answer.circuit, 0.0)
    agent.step()
    connector.step()
    assert connector.events[-1] == Suspect(answer.circuit)
    connector.attachment.drop(offer.circuit, Reason.DRAINING, 0.0)
    connector.step()
    agent.step()
    assert agent.events[-1] == Drop(answer.circuit, Reason.DRAINING.code)


def test_a_lost_attachment_is_told_and_taken_over() -> None:
    edge, agent, connector = three()
    agent.attachment.ask(0, b"p" * 16, b"T", 0.0)
    agent.step()
    (circuit,) = edge.core.table.values()
    agent.side.close(0, "gone", 1.0)
    agent.step(1.0)
    connector.step(1.0)
    assert isinstance(agent.events[-1], AttachmentClosed)
    assert connector.events[-1] == FarAway(circuit.id)
    again = Home(edge, AGENT, 2.0, agent.slots())
    assert again.slots() == agent.slots()


def test_an_ask_without_a_connector_is_answered_in_the_end() -> None:
    edge = Edge(Limits(settling=0.0))
    agent = Home(edge, AGENT)
    request = agent.attachment.ask(0, b"p" * 16, b"T", 0.0)
    assert request is not None
    agent.step()
    edge.core.handle_timeout(5.0)
    agent.step(5.0)
    assert agent.events[-1] == NoCircuit(request, Reason.TUNNEL_DOWN.code)


def test_an_ask_that_nobody_answers_ends_too() -> None:
    agent = Home(Edge(), AGENT)
    request = agent.attachment.ask(0, b"p" * 16, b"T", 0.0)
    assert request is not None
    while (due := agent.attachment.poll_timeout()) is not None and due[0] <= ASK_WAIT:
        agent.attachment.handle_timeout(due[0])
    agent.step(ASK_WAIT)
    assert NoCircuit(request, Reason.TUNNEL_DOWN.code) in agent.events


def test_a_cancelled_asks_circuit_is_dropped() -> None:
    edge, agent, connector = three()
    request = agent.attachment.ask(0, b"p" * 16, b"T", 0.0)
    assert request is not None
    agent.attachment.cancel(request)
    agent.step()
    connector.step()
    assert not edge.core.table
    assert isinstance(connector.events[-1], Drop)
    assert not [event for event in agent.events if isinstance(event, Circuit)]


def test_connectors_beat_every_second_agents_every_twenty() -> None:
    _, agent, connector = three()
    for node, every in ((agent, 20.0), (connector, 1.0)):
        due = node.attachment.poll_timeout()
        assert due is not None
        assert due[0] == every
        node.attachment.handle_timeout(every)
        node.step(every)
    assert {member.heard for member in agent.edge.core.members} == {20.0, 1.0}


def test_a_node_gives_up_on_a_switch_that_never_answers() -> None:
    client, _ = pair()
    link = Link(face(client))
    attachment = NodeAttachment(link, AGENT, lambda challenge, leaf: b"", 0.0)
    due = attachment.poll_timeout()
    assert due is not None
    attachment.handle_timeout(due[0])
    link.handle_connection(10.0)
    while (event := link.poll_event()) is not None:
        attachment.handle_link(event, 10.0)
    assert attachment.poll_event() == AttachmentClosed(Reason.TIMED_OUT, Reason.TIMED_OUT.text, True)


def test_nobody_attaches_twice_on_one_stream() -> None:
    edge, agent, _ = three()
    agent.side.write(0, TO_SWITCH.encode(Attach("agent", b"", b"", b"")))
    agent.step()
    assert agent.side.closed is not None
    assert agent.side.closed.code == Reason.PROTOCOL.close_code
    assert len(edge.core.members) == 1


@pytest.mark.parametrize("body", [b"\xc1", b"\x81\xa4type\xa4Nope", b"\x81\xa4type\xa3Ask", b"\xff" * 9])
def test_nonsense_ends_its_own_connection_only(body: bytes) -> None:
    edge, agent, connector = three()
    agent.side.write(0, len(body).to_bytes(4, "big") + body)
    agent.step()
    assert agent.side.closed is not None
    assert agent.side.closed.code == Reason.PROTOCOL.close_code
    connector.step()
    assert connector.attachment.state is State.ATTACHED
    assert len(edge.core.members) == 1


def test_an_expelled_device_is_closed_with_the_reason() -> None:
    edge, agent, _ = three()
    edge.attachments.expel(AGENT.key, Reason.DEVICE_UNKNOWN, 1.0)
    agent.step(1.0)
    assert agent.events[-1] == AttachmentClosed(Reason.DEVICE_UNKNOWN, Reason.DEVICE_UNKNOWN.text, False)
    assert len(edge.core.members) == 1


@pytest.mark.parametrize(
    "message",
    [Attached(BOOT, ()), Circuit(1, b"short", 1224, b""), Drop(b""), Offer(b"1234567", 0, 1224, b"p" * 16, b"", b"")],
)
def test_a_switch_that_talks_nonsense_is_left(message: Any) -> None:
    _, agent, _ = three()
    agent.edge.sides[1][0].write(0, TO_NODE.encode(message))
    agent.step()
    assert isinstance(agent.events[-1], AttachmentClosed)
    assert agent.events[-1].reason is Reason.PROTOCOL


def test_newer_attachments_of_a_key_close_the_oldest() -> None:
    edge = Edge(Limits(slots_per_node=4))
    homes = [Home(edge, AGENT) for _ in range(3)]
    homes[0].step()
    assert homes[0].events[-1] == AttachmentClosed(Reason.LIMIT, Reason.LIMIT.text, False)
    assert [home.attachment.state for home in homes[1:]] == [State.ATTACHED] * 2
    assert len(edge.core.members) == 2
