"""Slots at a switch: which address a node's traffic comes from, and that nobody else can decide it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.sim.slot_world import MALLORY, PASS, Node, World
from warren.edge.switch.model import Admission
from warren.fabric.core import frames
from warren.fabric.core.engine import PathChange
from warren.fabric.core.frames import Cookie
from warren.fabric.core.messages import attachment as say
from warren.fabric.core.slot import Cause, Slot

HOME = ("198.51.100.7", 4000)
SITE = ("192.0.2.9", 5000)


def two(world: World) -> tuple[Node, Node, bytes]:
    """An agent and a connector with one circuit."""
    connector = world.node("connector", SITE, "connector")
    agent = world.node("agent", HOME)
    world.until(lambda: agent.slot.bound and connector.slot.bound)
    return agent, connector, frames.header(world.connect(agent))


def only(world: World) -> bytes:
    """The id of the only circuit."""
    (circuit,) = world.switch.table.values()
    return circuit.id


def flood(world: World, call: Callable[[], None], every: float, times: int) -> None:
    for count in range(times):
        world.at(world.now + count * every, call)


# ---- honest ways ----


def test_a_slot_is_bound_at_its_largest_size() -> None:
    world = World()
    node = world.node("agent", HOME)
    world.run(1.0)
    assert world.owner(node) == HOME
    assert node.slot.bound
    assert node.slot.size == 1452
    assert node.slot.generation == 1
    assert node.sent[frames.BIND] == 3
    assert all(bound.change is None for bound in node.bounds())


@pytest.mark.parametrize("seed", range(20))
def test_losses_only_delay(seed: int) -> None:
    world = World(seed, loss=0.3)
    node = world.node("agent", HOME)
    world.until(lambda: node.slot.bound, 20.0)
    assert world.owner(node) == HOME
    world.until(lambda: node.slot.size == 1452, 1300.0)


def test_a_new_port_is_a_rebound_and_the_other_end_is_told() -> None:
    world = World()
    agent, connector, _ = two(world)
    agent.address = (HOME[0], 4001)
    agent.slot.suspect(world.now)
    agent.flush()
    world.run(1.0)
    assert world.owner(agent) == (HOME[0], 4001)
    assert [b.change for b in agent.bounds() if b.change] == [PathChange.REBOUND]
    assert world.said(connector, say.FarMoved) == [say.FarMoved(only(world), False)]


def test_another_network_is_moved_at_both_ends() -> None:
    world = World()
    agent, connector, _ = two(world)
    agent.address = (HOME[0], 4001)  # the same address, yet the node knows better
    agent.slot.network_changed(world.now)
    agent.flush()
    world.run(1.0)
    assert [b.change for b in agent.bounds() if b.change] == [PathChange.MOVED]
    assert [m.moved for m in world.said(connector, say.FarMoved) if isinstance(m, say.FarMoved)] == [True]


def test_an_upstream_failover_is_moved_though_the_node_saw_nothing() -> None:
    world = World()
    agent, _, header = two(world)
    agent.address = ("198.51.100.99", 4000)
    agent.send(header + b"data")
    world.run(1.0)
    assert [b.change for b in agent.bounds() if b.change] == [PathChange.MOVED]


def test_a_lost_bound_loses_nothing() -> None:
    """The binding holds at the switch, its Bound never came: the repeat still says that the address has changed."""
    world = World()
    agent, _, _ = two(world)
    agent.address = (HOME[0], 4001)
    real = agent.receive
    lost: list[bytes] = []

    def deaf(packet: bytes) -> None:
        if packet[8] == frames.BOUND:
            lost.append(packet)
        else:
            real(packet)

    agent.receive = deaf  # type: ignore[method-assign]
    agent.slot.suspect(world.now)
    agent.flush()
    world.until(lambda: len(lost) >= 3)
    agent.receive = real  # type: ignore[method-assign]
    world.until(lambda: agent.slot.bound)
    assert [b.change for b in agent.bounds() if b.change] == [PathChange.REBOUND]


def test_a_smaller_path_is_used_at_once_and_grows_back() -> None:
    world = World()
    agent, connector, _ = two(world)
    agent.mtu = 1300
    agent.slot.suspect(world.now)
    agent.flush()
    world.until(lambda: agent.slot.size == 1232)
    asked = agent.slot.sent_for[Cause.REGROW]
    assert world.said(connector, say.Resized)[-1] == say.Resized(only(world), 1224)
    world.run(60.0)
    assert agent.slot.sent_for[Cause.REGROW] == asked + 2
    agent.mtu = 1500
    world.run(600.0)
    assert agent.slot.size == 1452
    assert world.said(connector, say.Resized)[-1] == say.Resized(only(world), 1444)


def test_a_hint_finds_a_rebound_slot() -> None:
    world = World()
    agent, _, header = two(world)
    agent.address = (HOME[0], 4002)
    agent.send(header + b"data")
    world.until(lambda: world.owner(agent) == (HOME[0], 4002), 1.0)
    assert agent.slot.sent_for[Cause.HINT] == 1


def test_a_download_that_stops_is_noticed() -> None:
    world = World()
    agent, connector, header = two(world)
    for count in range(30):
        world.at(world.now + count * 0.02, lambda: connector.send(header + b"x" * 100))
    world.run(0.5)
    agent.address = (HOME[0], 4003)  # the NAT forgets; the agent sends nothing
    began = world.now
    world.until(lambda: world.owner(agent) == (HOME[0], 4003))
    assert world.now - began < 1.5
    assert agent.slot.sent_for[Cause.TRAIN] == 1


def test_silence_binds_every_second_and_ends_with_resumed() -> None:
    world = World()
    agent, _, _ = two(world)
    agent.slot.flight(0.1, world.now)
    agent.up = False
    agent.flush()
    before = agent.sent[frames.BIND]
    world.run(10.0)
    sent = agent.sent[frames.BIND] - before
    assert 20 <= sent <= 34
    agent.up = True
    began = world.now
    world.until(lambda: agent.slot.bound)
    assert world.now - began < 1.1
    assert agent.bounds()[-1].change is PathChange.RESUMED


def test_a_long_silence_gets_rarer() -> None:
    world = World()
    agent, _, _ = two(world)
    agent.slot.flight(0.1, world.now)
    agent.flush()
    world.run(60.0)
    first = agent.slot.sent_for[Cause.SILENCE]
    assert 55 <= first <= 65
    world.run(60.0)
    assert agent.slot.sent_for[Cause.SILENCE] - first <= 14


def test_idle_slots_keep_the_mapping() -> None:
    world = World()
    agent, _, _ = two(world)
    world.run(101.0)
    assert agent.slot.sent_for[Cause.IDLE] in (4, 5)
    assert not world.said(agent, say.FarAway)


def test_a_long_way_binds() -> None:
    """1.2 s each round, retried every second with a new counter: the answers come after the next Bind."""
    world = World(delay=0.6)
    node = world.node("agent", HOME)
    world.until(lambda: node.slot.bound, 6.0)


def test_binds_stop_with_the_attachment() -> None:
    world = World()
    agent, _, _ = two(world)
    agent.up = False
    agent.slot.network_changed(world.now)
    agent.flush()
    world.run(3.0)
    agent.slot.attachment(False, world.now)
    before = agent.sent[frames.BIND]
    world.run(100.0)
    assert agent.sent[frames.BIND] == before
    agent.up = True
    agent.slot.attachment(True, world.now)
    agent.flush()
    world.until(lambda: agent.slot.bound, 1.0)


def test_a_restarted_switch_is_noticed() -> None:
    world = World()
    agent, _, header = two(world)
    world.start()
    agent.send(header + b"data")
    world.run(0.5)
    assert agent.verifies() == 1
    agent.slot.suspect(world.now)
    agent.flush()
    world.run(3.0)
    assert agent.verifies() >= 2  # Unknown in answer to the Bind


def test_a_dead_switch_is_looked_at_after_three_binds() -> None:
    world = World()
    agent, _, _ = two(world)
    world.alive = False
    agent.slot.suspect(world.now)
    agent.flush()
    world.run(2.0)
    assert agent.verifies() == 1
    assert 3 <= agent.slot.sent_for[Cause.RETRY] + 1 <= 5


def test_an_offer_that_was_lost_with_its_attachment_is_made_again() -> None:
    world = World()
    agent, connector, _ = two(world)
    before = connector.member
    world.switch.detach(before, world.now)
    admission = Admission(before.key, "connector", before.boot, "tunnel")
    connector.member = world.switch.attach(admission, (connector.slot.id,), world.now)
    world.drain()
    (offer,) = world.said(connector, say.Offer)
    assert isinstance(offer, say.Offer)
    assert (offer.circuit, offer.key, offer.permit) == (only(world), agent.member.key, PASS)


def test_answers_that_get_lost_leave_one_circuit_behind_at_most() -> None:
    world = World()
    agent, connector, _ = two(world)
    circuits = [world.connect(agent, request) for request in range(2, 12)]
    assert set(agent.member.slots[0].circuits) == set(connector.member.slots[0].circuits) == set(circuits[-2:])
    assert len(world.switch.table) == 2


def test_an_idle_slot_binds_when_a_circuit_is_offered() -> None:
    world = World()
    _, connector, _ = two(world)
    connector.slot.offered(world.now)
    assert connector.slot.sent_for[Cause.OFFER] == 0
    world.run(3.0)
    connector.address = (SITE[0], 5001)  # the NAT forgets; the connector sends nothing
    connector.slot.offered(world.now)
    connector.flush()
    world.until(lambda: world.owner(connector) == (SITE[0], 5001), 1.0)
    assert connector.slot.sent_for[Cause.OFFER] == 1


# ---- attacks ----


def test_forged_hints_move_nothing_and_cost_little() -> None:
    world = World()
    agent, connector, header = two(world)
    circuit = header[1:]
    flood(world, lambda: agent.receive(frames.hint(frames.REBIND, circuit)), 0.01, 3000)
    flood(world, lambda: agent.receive(frames.hint(frames.UNKNOWN, circuit)), 0.01, 3000)
    world.run(30.0)
    assert agent.slot.sent_for[Cause.HINT] + agent.verifies() <= 6
    assert world.owner(agent) == HOME
    assert not [b for b in agent.bounds() if b.change]
    assert not world.said(connector, say.FarMoved)


def test_hints_are_ignored_while_the_way_works() -> None:
    world = World()
    agent, connector, header = two(world)
    for count in range(1000):
        world.at(world.now + count * 0.01, lambda: connector.send(header + b"x"))
        world.at(world.now + 0.1 + count * 0.01, lambda: agent.receive(frames.hint(frames.REBIND, header[1:])))
    world.run(10.0)
    assert agent.slot.sent_for[Cause.HINT] == 0


@pytest.mark.parametrize("seed", range(5))
def test_forged_challenges_shut_out_nothing(seed: int) -> None:
    world = World()
    rnd = random.Random(seed)

    def forge(node: Node, packet: bytes) -> None:
        if packet[8] == frames.BIND:
            counter = int.from_bytes(packet[10:18], "big")
            cookie = Cookie(rnd.getrandbits(40), 1452, rnd.randbytes(16))
            node.receive(frames.challenge(node.slot.id, counter, cookie))

    world.taps.append(forge)
    node = world.node("agent", HOME)
    world.until(lambda: node.slot.bound, 1.0)
    assert node.slot.size == 1452


def test_a_flood_of_forged_challenges_is_answered_sixteen_times_a_counter() -> None:
    world = World()
    agent, _, _ = two(world)
    cookie = Cookie(1, 1232, bytes(16))
    before = agent.sent[frames.ANSWER]
    for _ in range(1000):
        agent.receive(frames.challenge(agent.slot.id, agent.slot.counter, cookie))
    assert agent.sent[frames.ANSWER] - before <= 16


def test_replayed_binds_and_answers_move_nothing() -> None:
    world = World()
    heard: list[bytes] = []
    world.taps.append(lambda node, packet: heard.append(packet))
    agent, connector, _ = two(world)
    rnd = random.Random(1)
    for count in range(1000):
        world.at(world.now + count * 0.01, lambda: world.to_switch(rnd.choice(heard), MALLORY))
    world.run(12.0)
    assert world.owner(agent) == HOME
    assert world.owner(connector) == SITE
    assert sum(map(len, world.to_mallory)) <= world.from_mallory
    assert not [p for p in world.to_mallory if p[8] == frames.BOUND]


def test_copied_binds_and_answers_that_race_ahead_move_nothing() -> None:
    """Whoever copies gets a Challenge for his own address, and can't make the Answer; the node's own still counts."""
    world = World()
    agent, connector, _ = two(world)
    world.taps.append(lambda node, packet: world.to_switch(packet, MALLORY, 0.001))
    agent.address = (HOME[0], 4001)
    agent.slot.suspect(world.now)
    agent.flush()
    world.run(5.0)
    assert world.owner(agent) == (HOME[0], 4001)
    assert sum(map(len, world.to_mallory)) <= world.from_mallory
    assert len(world.said(connector, say.FarMoved)) == 1


def test_ids_seen_on_the_path_reach_nobody_from_elsewhere() -> None:
    world = World()
    agent, connector, header = two(world)
    before = len(connector.got) + len(agent.got)
    for count in range(500):
        world.at(world.now + count * 0.01, lambda: world.to_switch(header + b"x" * 1000, MALLORY))
    world.run(6.0)
    assert len(connector.got) + len(agent.got) == before
    assert all(len(packet) == frames.HINT_LENGTH for packet in world.to_mallory)
    assert len(world.to_mallory) <= 80  # the budget of its prefix
    assert world.owner(agent) == HOME


def test_two_nodes_race_for_one_slot_without_a_storm() -> None:
    """A clone of the device, same slot and key: the higher counter has it; hints back off, state does not grow."""
    world = World()
    agent, _, header = two(world)
    clone = Node(world, "clone", Slot(0, agent.slot.id, agent.slot.key, world.now), agent.member, ("198.51.100.8", 1))
    world.nodes.append(clone)
    clone.flush()
    for count in range(300):
        world.at(world.now + count * 0.1, lambda: agent.send(header + b"a"))
        world.at(world.now + count * 0.1, lambda: clone.send(header + b"c"))
    world.run(30.0)
    assert agent.slot.sent_for[Cause.HINT] + clone.slot.sent_for[Cause.HINT] <= 14
    assert len(world.switch._bindings.slots) == 4


def test_a_flood_of_binds_leaves_no_state() -> None:
    world = World()
    agent, _, _ = two(world)
    rnd = random.Random(2)
    before = len(world.switch._bindings.slots)
    for count in range(5000):
        bind = frames.bind(rnd.randbytes(7), rnd.randbytes(16), rnd.getrandbits(60), False, 1232)
        own = frames.bind(agent.slot.id, rnd.randbytes(16), rnd.getrandbits(60), False, 1232)
        source = (f"10.{rnd.randrange(256)}.{count % 256}.{rnd.randrange(256)}", 7)
        world.arrive(bind, source)
        world.arrive(own, source)
        world.now += 0.001
    assert len(world.switch._bindings.slots) == before
    assert len(world.switch._hints) <= 4096
    assert world.owner(agent) == HOME
    assert world.switch.counters["hints"] <= 500 + 500 * 5.2


def test_an_old_bound_said_again_shrinks_nothing() -> None:
    world = World()
    node = world.node("agent", HOME)
    world.run(1.0)
    bounds = [packet for packet in node.got if packet[8] == frames.BOUND]
    events = len(node.events)
    for packet in bounds:
        node.receive(packet)
    assert node.slot.size == 1452
    assert len(node.events) == events


def test_nothing_sent_to_an_unproved_address_is_longer_than_what_came() -> None:
    world = World()
    agent, _, header = two(world)
    key = agent.slot.key
    packets = [frames.bind(agent.slot.id, key, 99, False, size) for size in frames.SIZES]
    packets += [header + b"x", header, b"\x28" + header[1:], frames.hint(frames.UNKNOWN, header[1:])]
    for packet in packets:
        count = len(world.to_mallory)
        world.arrive(packet, MALLORY)
        assert sum(map(len, world.to_mallory[count:])) <= len(packet)


def test_nothing_answers_a_hint() -> None:
    world = World()
    two(world)
    world.arrive(frames.hint(frames.UNKNOWN, b"1234567"), MALLORY)
    world.arrive(frames.hint(frames.REBIND, b"1234567"), MALLORY)
    assert not world.to_mallory
