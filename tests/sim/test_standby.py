"""A peer connection that has a circuit through each of two edges: whatever happens to one, every byte comes."""

from __future__ import annotations

import statistics

import pytest

from tests.certificates import Shown
from tests.sim import conftest
from tests.sim.conftest import engines_of
from tests.sim.standby_world import World
from warren.fabric.core.engine import Engine
from warren.fabric.core.paths import State

BOTH = {"up": 500_000, "down": 500_000}
LOADS = {"both": BOTH, "down": {"down": 700_000}, "up": {"up": 700_000}}
SEEDS = range(max(1, conftest.SEEDS // 10))


@pytest.fixture(params=("native-native", "aioquic-aioquic", "native-aioquic"))
def engines(request: pytest.FixtureRequest) -> tuple[Engine, Engine]:
    """Agent's and connector's."""
    return engines_of(request.param)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_edge_is_killed_and_the_standby_leads(
    seed: int, load: str, engines: tuple[Engine, Engine], shown: Shown
) -> None:
    world = World(seed, engines, shown, **LOADS[load])
    world.run(1.0 + seed / 7)
    world.edges[0].alive = False
    killed = world.network.now
    world.finish()
    assert world.moves() == (1, 1)
    assert world.agent.ways.lead == world.connector.ways.lead == world.circuits[1]
    assert world.load.stall(killed) < 1.0


def test_a_chat_stalls_for_the_patience_and_little_more(engines: tuple[Engine, Engine], shown: Shown) -> None:
    stalls = []
    for seed in SEEDS:
        world = World(seed, engines, shown)
        world.load.chat(world.agent)
        world.run(1.0 + seed / 7)
        world.edges[0].alive = False
        killed = world.network.now
        world.run(3.0)
        stalls.append(world.load.stall(killed))
        assert world.moves() == (1, 1)
    assert statistics.median(stalls) < 0.5


def test_what_a_thawed_edge_delivers_late_moves_nothing(engines: tuple[Engine, Engine], shown: Shown) -> None:
    world = World(4, engines, shown, **BOTH)
    world.load.chat(world.agent)
    world.run(1.0)
    world.edges[0].frozen = True
    frozen = world.network.now
    world.run(4.0)
    assert world.load.stall(frozen) < 1.0
    world.edges[0].thaw()
    thawed = world.network.now
    world.run(2.0)
    assert world.moves() == (1, 1)
    assert world.load.stall(thawed) < 0.5
    world.finish()


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("dead", ["to the agent", "from the agent", "to the connector", "from the connector"])
def test_a_way_that_fails_in_one_direction(dead: str, load: str, engines: tuple[Engine, Engine], shown: Shown) -> None:
    world = World(5, engines, shown, **LOADS[load])
    world.run(1.1)
    edge = world.edges[0].host
    node = (world.agent if dead.endswith("agent") else world.connector).host
    world.network.cut(*((edge, node) if dead.startswith("to") else (node, edge)))
    since = world.network.now
    world.finish()
    assert world.load.stall(since) < 3.0
    assert max(world.moves()) <= 2


@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("load", ["both", "down"])
def test_both_edges_are_cut_off_and_one_comes_back(
    load: str, back: int, engines: tuple[Engine, Engine], shown: Shown
) -> None:
    waits = []
    for seed in range(5):
        world = World(seed, engines, shown, **LOADS[load])
        world.run(1.0)
        for edge in world.edges:
            edge.alive = False
        world.run(10.0 + seed / 7)
        world.edges[back].alive = True
        returned = world.network.now
        world.run(3.0)
        waits.append(world.load.first_after(returned))
        world.finish()
    assert statistics.median(waits) < 0.5 and max(waits) < 1.0, waits


def test_while_nothing_answers_little_is_sent(engines: tuple[Engine, Engine], shown: Shown) -> None:
    world = World(6, engines, shown, **BOTH)
    world.run(1.0)
    for edge in world.edges:
        edge.alive = False
    world.run(60.0)
    before = world.agent.sent
    world.run(60.0)
    assert world.agent.sent - before < 900
    for edge in world.edges:
        edge.alive = True
    world.bound(1)
    bound = world.network.now
    world.run(1.0)
    assert world.load.first_after(bound) < 0.5
    world.finish()


def test_edges_that_die_and_come_back_in_turn(engines: tuple[Engine, Engine], shown: Shown) -> None:
    world = World(7, engines, shown, **BOTH)
    world.load.chat(world.agent)
    world.run(1.0)
    began = world.network.now
    for turn in range(6):
        world.edges[turn % 2].alive = False
        world.run(2.5)
        world.edges[turn % 2].alive = True
        world.run(0.5)
    assert world.load.stall(began) < 2.0
    assert max(world.moves()) <= 7
    world.finish()


def test_without_a_failure_nothing_moves(engines: tuple[Engine, Engine], shown: Shown) -> None:
    world = World(8, engines, shown, **BOTH, delays=(0.005, 0.15), loss=0.02)
    world.finish()
    assert world.moves() == (0, 0)


@pytest.mark.parametrize("kind", ["late copies", "every hundredth copied", "other bytes"])
def test_somebody_who_sees_one_way_and_sends_on_the_other_moves_nothing(
    kind: str, engines: tuple[Engine, Engine], shown: Shown
) -> None:
    world = World(9, engines, shown, **BOTH)
    net, count = world.network, 0
    theirs = {world.circuits[0]: world.circuits[1]}

    def seen(now: float, source: tuple[str, int], to: tuple[str, int], data: bytes) -> None:
        """He reads what reaches the first edge, and races it over the second."""
        nonlocal count
        if to != world.edges[0].socket.address or data[:8] not in theirs:
            return
        count += 1
        agents = source == world.agent.sockets[0].address
        victim = world.connector if agents else world.agent
        copy = theirs[data[:8]] + (data[8:-1] + b"!" if kind == "other bytes" else data[8:])
        if kind == "every hundredth copied" and count % 100:
            return
        wait = 0.5 if kind == "late copies" else 0.0
        net.after(wait, victim._received, 1, copy)

    net.trace = seen
    world.finish()
    assert count > 500
    assert world.moves() == (0, 0)
    assert world.agent.ways.state is State.LEADING


def test_somebody_who_outruns_every_packet_loses_no_flow(engines: tuple[Engine, Engine], shown: Shown) -> None:
    world = World(10, engines, shown, **BOTH)

    def seen(now: float, source: tuple[str, int], to: tuple[str, int], data: bytes) -> None:
        if to == world.edges[0].socket.address:
            victim = world.connector if source == world.agent.sockets[0].address else world.agent
            victim._received(1, world.circuits[1] + data[8:])

    world.network.trace = seen
    began = world.network.now
    world.finish()
    assert world.load.stall(began) < 2.0
    assert max(world.moves()) <= 2, "to a circuit of the connection's own, and there it stays"
