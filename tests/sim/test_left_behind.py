"""What daemons keep of what is over: nothing, also before the interpreter looks for circles of garbage."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator

import pytest

from tests.sim.whole_world import Whole, simulated
from warren.edge.app import Edge
from warren.fabric.core.messages.session import Answer
from warren.fabric.engines import EngineName

QUERIES = 40


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What an engine keeps for a connection is far more than its few objects let the interpreter guess: it would look
    for garbage after thousands of connections."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("engine", ["auto", "aioquic"])
def test_dns_queries(engine: EngineName, loss: float) -> None:
    world = Whole(7, edges=1, connectors=1, engine_name=engine)
    with simulated(world, 7):
        world.start()
        assert world.agent is not None and world.edges[0] is not None
        (process, side), (_, edge) = world.agent, world.edges[0]
        before = kept(edge)
        world.agent_host.up.loss = world.agent_host.down.loss = loss
        answers: list[object] = []

        async def ask(number: int) -> None:
            answers.append(await side.nodes[0].judge.query(b"%d" % number * 2000, "udp"))  # in more than one packet

        for number in range(QUERIES):
            process.call_soon(lambda work: process.create_task(work), ask(number))
            assert world.network.run_until(functools.partial(answered, answers, number + 1), 30.0)
        world.agent_host.up.loss = world.agent_host.down.loss = 0.0
        assert world.network.run_until(lambda: kept(edge) == before, 10.0)
        assert all(isinstance(answer, Answer) for answer in answers) and not world.faults()
        call = side.nodes[0]._call
        assert call is not None and len(call.link._streams._handlers) <= 3


def answered(answers: list[object], count: int) -> bool:
    return len(answers) == count


def kept(edge: Edge) -> int:
    """Streams whose events somebody at the edge waits for."""
    return sum(len(node._streams._handlers) for node in edge.connections._by_connection.values())


@pytest.mark.parametrize("engine", ["auto", "aioquic"])
def test_agents_that_left(engine: EngineName) -> None:
    world = Whole(8, edges=1, connectors=1, engine_name=engine)
    with simulated(world, 8):
        before = alive("NodeConnection"), alive("Flows"), alive("ConnectorPeer")
        world.start()
        for _ in range(3):
            assert world.agent is not None
            process, side = world.agent
            world.open("tcp")
            world.network.run(world.network.now + 2.0)
            process.call_soon(process.create_task, side.close())
            world.network.run(world.network.now + 2.0)
            world.kill_agent()
            world.start_agent()
            assert world.network.run_until(world.connected, 10.0)
        after = alive("NodeConnection"), alive("Flows"), alive("ConnectorPeer")
        assert [now - then for now, then in zip(after, before, strict=True)] == [2, 0, 0] and not world.faults()


@pytest.mark.parametrize("engine", ["auto", "aioquic"])
def test_an_edge_that_does_not_answer(engine: EngineName) -> None:
    world = Whole(9, edges=1, connectors=1, engine_name=engine)
    with simulated(world, 9):
        before = alive("Call"), alive("Link")
        world.start()
        world.kill_edge(0)
        world.network.run(world.network.now + 120.0)
        assert alive("Call") - before[0] <= 4 and alive("Link") - before[1] <= 4  # of two nodes


def alive(name: str) -> int:
    return sum(type(one).__name__ == name for one in gc.get_objects())
