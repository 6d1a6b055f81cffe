"""Who gets a circuit to whom, what each end hears, and what is bounded."""

from __future__ import annotations

import pytest

from tests.unit.edge.switch.fixture import PEER, Desk
from warren.edge.switch.circuits import AWAY
from warren.edge.switch.model import Admission, Limits, Member
from warren.fabric.core import frames
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.attachment import (
    Ask,
    Attached,
    Circuit,
    Drop,
    FarAway,
    FarMoved,
    NoCircuit,
    Offer,
    Rejected,
    Resized,
    Suspect,
)
from warren.fabric.core.reasons import Reason


def test_a_circuit_is_offered_to_the_connector_with_the_agents_key() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    answer = desk.ask(agent, 7)
    assert isinstance(answer, Circuit)
    assert (answer.request, answer.size, answer.boot) == (7, 1224, b"c" * 16)
    assert desk.heard(connector)[-1] == Offer(answer.circuit, 0, 1224, PEER, b"agent", b"T")
    assert frames.header(answer.circuit) in desk.core.table


def test_the_boot_id_is_told() -> None:
    desk = Desk()
    first = desk.heard(desk.agent())[0]
    assert isinstance(first, Attached)
    assert first.boot == b"B" * 16
    assert [slot.index for slot in first.slots] == [0, 1]


def test_an_ask_waits_for_a_connector() -> None:
    desk = Desk()
    agent = desk.agent()
    assert desk.ask(agent) is None
    desk.wait(3.0)
    connector = desk.connector(now=3.0, bound=False)
    assert len(desk.heard(agent)) == 1
    desk.bind(connector, 0, 3.1)
    assert isinstance(desk.heard(agent)[-1], Circuit)
    assert agent.asks == 0


def test_an_ask_waits_five_seconds_at_most() -> None:
    desk = Desk(Limits(settling=0.0))
    agent = desk.agent()
    desk.connector(tunnel="other")
    assert desk.ask(agent, 9, now=1.0) is None
    desk.wait(5.9)
    assert len(desk.heard(agent)) == 1
    desk.wait(6.0)
    assert desk.heard(agent)[-1] == NoCircuit(9, Reason.TUNNEL_DOWN.code)


def test_an_ask_waits_until_a_new_process_has_settled() -> None:
    """What was attached to the one before comes back meanwhile."""
    desk = Desk(Limits(settling=20.0))
    agent = desk.agent()
    assert desk.ask(agent, 1, now=1.0) is None
    assert desk.ask(agent, 2, patient=False) == NoCircuit(2, Reason.TUNNEL_DOWN.code)
    assert desk.ask(agent, 3, now=14.0) is None
    assert desk.ask(agent, 4, now=16.0) is None
    desk.wait(19.9)
    assert agent.asks == 3
    desk.wait(20.0)
    assert desk.heard(agent)[-2:] == [NoCircuit(number, Reason.TUNNEL_DOWN.code) for number in (1, 3)]
    desk.wait(21.0)
    assert desk.heard(agent)[-1] == NoCircuit(4, Reason.TUNNEL_DOWN.code)


def test_asks_are_bounded_for_each_node_and_in_all() -> None:
    desk = Desk(Limits(asks=5, asks_per_node=3))
    one, two = desk.agent(b"one"), desk.agent(b"two")
    assert [desk.ask(one, n) for n in range(3)] == [None] * 3
    assert desk.ask(one, 3) == NoCircuit(3, Reason.LIMIT.code)
    assert [desk.ask(two, n) for n in range(2)] == [None] * 2
    assert desk.ask(two, 2) == NoCircuit(2, Reason.LIMIT.code)
    desk.core.detach(one, 1.0)
    assert desk.ask(two, 3) is None


def test_the_least_loaded_connector_that_was_not_tried() -> None:
    desk = Desk()
    desk.connector(b"1" * 16)
    desk.connector(b"2" * 16)
    agent = desk.agent()
    answers = [desk.ask(agent, n) for n in range(4)]
    boots = [answer.boot for answer in answers if isinstance(answer, Circuit)]
    assert sorted(boots) == [b"1" * 16] * 2 + [b"2" * 16] * 2
    for n in range(3):
        answer = desk.ask(agent, 10 + n, tried=(b"1" * 16,))
        assert isinstance(answer, Circuit)
        assert answer.boot == b"2" * 16
    assert desk.ask(agent, 20, tried=(b"1" * 16, b"2" * 16)) is None


def test_a_named_process_is_that_process_or_none() -> None:
    desk = Desk(Limits(settling=0.0))
    desk.connector(b"1" * 16)
    agent = desk.agent()
    assert desk.ask(agent, 1, boot=b"2" * 16) is None
    desk.connector(b"2" * 16)
    answer = desk.heard(agent)[-1]
    assert isinstance(answer, Circuit)
    assert answer.boot == b"2" * 16
    assert desk.ask(agent, 2, boot=b"3" * 16) is None
    desk.wait(5.0)
    assert desk.heard(agent)[-1] == NoCircuit(2, Reason.TUNNEL_DOWN.code)


def test_an_agent_hears_under_which_authority_its_connector_showed_itself() -> None:
    desk = Desk()
    for number, authority in ((b"1", b"old"), (b"2", b"new")):
        admission = Admission(number, "connector", number * 16, "T", authority, 1)
        desk.bind(desk._took(desk.core.attach(admission, (), 0.0)))
    agent = desk.agent()
    told = [desk.ask(agent, 1, boot=number * 16) for number in (b"1", b"2")]
    assert [one.authority for one in told if isinstance(one, Circuit)] == [b"old", b"new"]


def test_a_connector_with_another_authority_takes_over_the_circuits_of_its_key() -> None:
    desk = Desk()
    before = desk.core.attach(Admission(b"key", "connector", b"c" * 16, "T", b"old", 1), (), 0.0)
    desk.bind(desk._took(before))
    agent = desk.agent()
    first = desk.ask(agent)
    assert isinstance(first, Circuit)
    claim = tuple(slot.id for slot in before.slots.values())
    after = desk._took(desk.core.attach(Admission(b"key", "connector", b"c" * 16, "T", b"new", 2), claim, 1.0))
    assert [circuit.id for circuit in desk.core.table.values()] == [first.circuit]
    assert before not in desk.core.members
    assert not any(isinstance(message, FarAway) for message in desk.heard(agent))
    second = desk.ask(agent, 2)
    assert isinstance(second, Circuit)
    assert (second.authority, len(after.slots[0].circuits)) == (b"new", 2)


def test_no_circuit_without_a_pass() -> None:
    desk = Desk()
    desk.connector()
    assert desk.ask(desk.agent(), permit=b"bad") == NoCircuit(1, Reason.BAD_GRANT.code)


@pytest.mark.parametrize("ask", [Ask(1, 2, PEER, b"T"), Ask(1, -1, PEER, b"T"), Ask(1, 0, b"short", b"T")])
def test_nonsense_is_refused(ask: Ask) -> None:
    desk = Desk()
    agent = desk.agent()
    desk.core.ask(agent, ask, 0.0)
    assert desk.heard(agent)[-1] == NoCircuit(1, Reason.PROTOCOL.code)


def test_a_connector_asks_for_nothing() -> None:
    desk = Desk()
    assert desk.ask(desk.connector()) == NoCircuit(1, Reason.PROTOCOL.code)


def test_circuits_of_a_node_are_bounded() -> None:
    desk = Desk(Limits(circuits_per_agent=2))
    desk.connector()
    agent = desk.agent()
    first = desk.circuit(agent)
    desk.circuit(agent, 2)
    assert desk.ask(agent, 3) == NoCircuit(3, Reason.LIMIT.code)
    desk.core.drop(agent, Drop(first), 0.0)
    desk.circuit(agent, 4)


def test_asks_of_a_node_are_budgeted() -> None:
    desk = Desk(Limits(asks_per_second=1.0, asks_burst=3.0))
    desk.connector()
    agent = desk.agent()
    kinds = [type(desk.ask(agent, n)) for n in range(5)]
    assert kinds == [Circuit] * 3 + [NoCircuit] * 2
    assert isinstance(desk.ask(agent, 9, now=1.0), Circuit)


def test_drop_ends_a_circuit_and_tells_the_other_end_why() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    desk.core.drop(connector, Drop(circuit, Reason.DRAINING.code), 0.0)
    assert desk.heard(agent)[-1] == Drop(circuit, Reason.DRAINING.code)
    assert not desk.core.table
    assert connector.load == agent.load == 0


def test_nobody_drops_or_suspects_what_is_not_his() -> None:
    desk = Desk()
    connector, agent, other = desk.connector(), desk.agent(), desk.agent(b"other")
    circuit = desk.circuit(agent)
    before = len(desk.heard(connector))
    desk.core.drop(other, Drop(circuit), 0.0)
    desk.core.suspect(other, Suspect(circuit), 0.0)
    assert desk.core.table
    assert len(desk.heard(connector)) == before


def test_suspect_goes_to_the_other_end() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    desk.core.suspect(agent, Suspect(circuit), 0.0)
    assert desk.heard(connector)[-1] == Suspect(circuit)


def test_sizes_and_moves_are_told() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    desk.bind(agent)
    assert desk.heard(agent)[-1] == desk.heard(connector)[-1] == Resized(circuit, 1444)
    desk.bind(agent, size=1400)
    assert desk.heard(connector)[-2:] == [FarMoved(circuit, False), Resized(circuit, 1392)]


def test_the_first_binding_is_no_move() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    desk.circuit(agent)
    desk.bind(agent)
    assert not [m for m in desk.heard(connector) if isinstance(m, FarMoved)]


def test_slots_and_circuits_outlive_the_attachment() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    ids = tuple(slot.id for slot in agent.slots.values())
    desk.core.detach(agent, 10.0)
    assert desk.heard(connector)[-1] == FarAway(circuit)
    desk.wait(500.0)
    desk.core.beat(connector, 500.0)
    again = desk.agent(now=500.0, claim=ids)
    assert tuple(slot.id for slot in again.slots.values()) == ids
    assert desk.heard(again)[-1] == Resized(circuit, 1224)
    desk.wait(2000.0)
    assert desk.core.table
    desk.core.drop(again, Drop(circuit), 2000.0)
    assert desk.heard(connector)[-1] == Drop(circuit)


def test_after_the_hold_time_they_end() -> None:
    desk = Desk(Limits(hold=60.0))
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    desk.core.detach(agent, 10.0)
    desk.wait(69.0)
    assert desk.core.table
    desk.wait(80.0)
    assert desk.heard(connector)[-1] == Drop(circuit, Reason.PEER_GONE.code)
    assert not desk.core.table


def test_what_ended_meanwhile_is_told_on_return() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    ids = tuple(slot.id for slot in agent.slots.values())
    desk.core.detach(agent, 1.0)
    desk.core.drop(connector, Drop(circuit, Reason.CANCELLED.code), 2.0)
    again = desk.agent(now=3.0, claim=ids)
    assert desk.heard(again)[-1] == Drop(circuit, Reason.CANCELLED.code)


def test_an_agent_hears_on_return_which_circuits_there_are() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    ended, stays = desk.circuit(agent), desk.circuit(agent, 2)
    ids = tuple(slot.id for slot in agent.slots.values())
    desk.core.drop(connector, Drop(ended), 1.0)
    first = desk.heard(desk.agent(now=3.0, claim=ids))[0]
    assert isinstance(first, Attached)
    assert [slot.circuits for slot in first.slots] == [(stays,), ()]
    of_connector = desk.heard(connector)[0]
    assert isinstance(of_connector, Attached) and of_connector.slots[0].circuits is None


@pytest.mark.parametrize("how", ["detached", "silent"])
def test_who_went_away_meanwhile_is_told_on_return(how: str) -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    ids = tuple(slot.id for slot in agent.slots.values())
    desk.core.detach(agent, 1.0)
    if how == "detached":
        desk.core.detach(connector, 2.0)
    desk.wait(10.0)
    again = desk.agent(now=10.0, claim=ids)
    assert desk.heard(again)[-2:] == [Resized(circuit, 1224), FarAway(circuit)]


def test_slots_of_another_key_are_not_taken_over() -> None:
    desk = Desk()
    agent = desk.agent()
    ids = tuple(slot.id for slot in agent.slots.values())
    thief = desk.agent(b"thief", claim=ids)
    assert {slot.id for slot in thief.slots.values()}.isdisjoint(ids)
    assert tuple(slot.id for slot in agent.slots.values()) == ids


def test_a_second_attachment_takes_over_from_a_living_first() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    again = desk.agent(claim=tuple(slot.id for slot in agent.slots.values()))
    before = len(desk.heard(connector))
    assert desk.heard(agent)[-1] == Rejected(Reason.CANCELLED.code)
    assert agent not in desk.core.members
    desk.core.detach(agent, 1.0)
    assert len(desk.heard(connector)) == before
    desk.core.drop(connector, Drop(circuit), 1.0)
    assert desk.heard(again)[-1] == Drop(circuit)


def test_slots_of_a_node_are_bounded_and_the_newest_attachment_wins() -> None:
    desk = Desk(Limits(slots_per_node=4))
    connector, first = desk.connector(), desk.agent()
    circuit = desk.circuit(first)
    second, third = desk.agent(), desk.agent()
    assert desk.heard(first)[-1] == Rejected(Reason.LIMIT.code)
    assert desk.heard(connector)[-1] == Drop(circuit, Reason.PEER_GONE.code)
    assert first not in desk.core.members
    assert len(desk.core._bindings.slots) == 2 + 4
    desk.core.detach(second, 1.0)
    desk.agent(now=2.0)
    assert third in desk.core.members
    assert len(desk.core._bindings.slots) == 2 + 4


def test_an_attachment_that_takes_over_is_not_its_own_victim() -> None:
    desk = Desk(Limits(slots_per_node=2))
    agent = desk.agent()
    again = desk.agent(claim=(agent.slots[0].id,))
    assert sorted(again.slots) == [0, 1]
    assert agent not in desk.core.members


def test_attachments_are_bounded() -> None:
    desk = Desk(Limits(members=1))
    desk.agent()
    with pytest.raises(DeniedError):
        desk.agent(b"other")


def test_far_away_after_45_silent_seconds_and_once() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    desk.bind(agent)
    circuit = desk.circuit(agent)
    table = desk.core.table[frames.header(circuit)]
    desk.wait(AWAY - 1)
    assert FarAway(circuit) not in desk.heard(connector)
    table.from_agent += 1
    desk.wait(AWAY + 40)
    assert FarAway(circuit) not in desk.heard(connector)
    desk.wait(AWAY + 60)
    desk.wait(1000.0)
    assert desk.heard(connector).count(FarAway(circuit)) == 1
    desk.bind(agent, now=1000.0)
    desk.wait(1100.0)
    assert desk.heard(connector).count(FarAway(circuit)) == 2


def test_a_gone_connector_gets_no_new_circuit() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    desk.core.detach(connector, 0.0)
    assert desk.ask(agent) is None


def test_expelled_nodes_lose_everything() -> None:
    desk = Desk()
    connector, agent = desk.connector(), desk.agent()
    circuit = desk.circuit(agent)
    assert desk.core.expel(b"agent", Reason.DEVICE_UNKNOWN, 1.0) == [agent]
    assert desk.heard(connector)[-1] == Drop(circuit, Reason.DEVICE_UNKNOWN.code)
    assert not desk.core.table
    assert len(desk.core._bindings.slots) == 2
    desk.core.detach(agent, 2.0)


def test_a_larger_size_with_the_same_counter_counts_a_smaller_does_not() -> None:
    desk = Desk()
    agent = desk.agent()
    address = desk.bind(agent, size=1232, counter=5)
    slot = agent.slots[0]
    desk.bind_at(agent, address, 0, 0.0, 1452, 5)
    assert slot.size == 1452
    with pytest.raises(AssertionError):
        desk.bind_at(agent, address, 0, 0.0, 1232, 5)
    assert slot.size == 1452
    with pytest.raises(AssertionError):
        desk.bind_at(agent, ("10.9.9.9", 1), 0, 0.0, 1452, 5)
    assert slot.address == address


def test_an_exact_repeat_is_said_again() -> None:
    desk = Desk()
    agent = desk.agent()
    address = desk.bind(agent, counter=5)
    desk.bind_at(agent, address, 0, 0.0, 1452, 5)
    assert agent.slots[0].generation == 1


def test_a_cookie_is_for_one_address_and_ten_seconds() -> None:
    desk = Desk()
    slot = desk.agent().slots[0]
    here, there = ("10.0.0.1", 1), ("10.0.0.2", 1)
    desk.core.handle_control(frames.bind(slot.id, slot.key, 1, False, 1232), here, 0.0)
    challenge = frames.decode(desk.packet())
    assert isinstance(challenge, frames.Challenge)
    answer = frames.answer(slot.id, slot.key, 1, False, challenge.cookie)
    for address, now in ((there, 1.0), (here, 10.1)):
        desk.core.handle_control(answer, address, now)
        assert desk.core.poll_transmit() is None
    desk.core.handle_control(answer, here, 9.9)
    assert slot.address == here


def test_an_answer_without_the_key_binds_nobody() -> None:
    """Whoever copies a Bind gets a Challenge with a cookie for his own address, and still can't answer it."""
    desk = Desk()
    slot = desk.agent().slots[0]
    here = ("203.0.113.66", 6666)
    desk.core.handle_control(frames.bind(slot.id, slot.key, 1, False, 1232), here, 0.0)
    challenge = frames.decode(desk.packet())
    assert isinstance(challenge, frames.Challenge)
    desk.core.handle_control(frames.answer(slot.id, b"x" * 16, 1, False, challenge.cookie), here, 0.1)
    assert slot.address is None
    assert desk.core.poll_transmit() is None
    desk.core.handle_control(frames.bind(slot.id, b"x" * 16, 2, False, 1232), here, 0.2)
    assert desk.core.poll_transmit() is None


def test_an_answer_of_before_does_not_bring_an_old_address_back() -> None:
    """Its cookie is still fresh, and it comes from the address that it was made for."""
    desk = Desk()
    agent = desk.agent()
    slot, before = agent.slots[0], ("10.0.0.1", 1)
    desk.core.handle_control(frames.bind(slot.id, slot.key, 1, False, 1232), before, 0.0)
    challenge = frames.decode(desk.packet())
    assert isinstance(challenge, frames.Challenge)
    old = frames.answer(slot.id, slot.key, 1, False, challenge.cookie)
    desk.core.handle_control(old, before, 0.1)
    desk.packet()
    now_at = desk.bind(agent, now=1.0, counter=2)
    desk.core.handle_control(old, before, 2.0)
    assert slot.address == now_at
    assert desk.core.poll_transmit() is None


# --- connectors that say nothing


def beat_until(desk: Desk, members: list[Member], end: float, start: float = 0.0) -> None:
    """Time goes on in steps of half a second; these connectors beat."""
    now = start
    while now < end:
        now += 0.5
        for member in members:
            desk.core.beat(member, now)
        desk.wait(now)


def test_a_connector_that_missed_three_beats_gets_no_circuits_until_it_is_heard() -> None:
    desk = Desk()
    silent, agent = desk.connector(), desk.agent()
    opened = desk.ask(agent, 1)
    assert isinstance(opened, Circuit)
    beat_until(desk, [], 6.0)
    assert desk.heard(agent)[-1] == FarAway(opened.circuit)
    assert desk.ask(agent, 2, now=6.0) is None
    desk.core.beat(silent, 7.0)
    assert isinstance(desk.heard(agent)[-1], Circuit)


def test_one_that_beats_is_taken_instead() -> None:
    desk = Desk()
    desk.connector(b"s" * 16)
    other, agent = desk.connector(b"o" * 16), desk.agent()
    beat_until(desk, [other], 6.0)
    for request in range(4):
        answer = desk.ask(agent, request, now=6.0)
        assert isinstance(answer, Circuit) and answer.boot == b"o" * 16


def test_a_switch_that_stood_still_takes_nobody_for_silent() -> None:
    desk = Desk()
    desk.connector()
    desk.wait(2.0)
    desk.core.handle_timeout(62.0)
    assert isinstance(desk.ask(desk.agent(), 1, now=62.0), Circuit)


def test_who_is_not_patient_hears_at_once_that_there_is_no_other() -> None:
    desk = Desk()
    desk.connector()
    agent = desk.agent()
    assert desk.ask(agent, 1, tried=(b"c" * 16,), patient=False) == NoCircuit(1, Reason.TUNNEL_DOWN.code)
    assert desk.ask(agent, 2, tried=(b"c" * 16,)) is None
