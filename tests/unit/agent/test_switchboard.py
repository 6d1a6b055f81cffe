"""Which edge is asked: in the device's own order, the next one when the first is slow or away, and no answer twice."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from warren.agent import switchboard
from warren.agent.switchboard import Switchboard
from warren.fabric.aio.edges import rendezvous, serving
from warren.fabric.aio.node import Node
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity.statements import Edge, EdgeList

pytestmark = pytest.mark.anyio


async def reach(tunnel: str) -> None:
    """It is attached to every edge."""


class FakeNode:
    """Answers with its name once it may."""

    def __init__(self, name: str) -> None:
        self.edge = Edge(name * 8, f"{name}.example", 4433, name)
        self.state = "connected"
        self.answers = True
        self.judge = self
        self.refused: Reason | None = None
        self.answer = asyncio.Event()
        self.answer.set()
        self.denies: Reason | None = None
        self.asked = self.doubted = self.wants = 0
        self.dropped: asyncio.Queue[bytes] = asyncio.Queue()

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "", resolver: str = "") -> str:
        self.asked += 1
        await self.answer.wait()
        if self.denies is not None:
            raise DeniedError(self.denies)
        return self.edge.name

    async def ask(self, *said: Any, **more: Any) -> tuple[Any, None]:
        await self.answer.wait()

        class Circuit:
            circuit = self.edge.name.encode()

        return Circuit(), None

    def doubt(self) -> None:
        self.doubted += 1

    def wanted(self) -> None:
        self.wants += 1

    def drop(self, circuit: bytes, reason: Reason) -> None:
        self.dropped.put_nowait(circuit)


@pytest.fixture
async def nodes() -> list[FakeNode]:
    """In the order of the key "device"."""
    return rendezvous("device", [FakeNode(name) for name in "ab"])  # type: ignore[type-var]


@pytest.fixture
async def board(nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch) -> Switchboard:
    monkeypatch.setattr(switchboard, "HEDGE", 0.01)
    return Switchboard(
        "device", lambda: cast(list[Node], nodes), lambda: EdgeList(1, tuple(n.edge for n in nodes)), reach
    )


async def decided(board: Switchboard) -> str:
    return cast(str, await board.decide("tcp", 443, address="10.0.0.1"))


async def test_the_first_answers_and_nobody_else_is_asked(board: Switchboard, nodes: list[FakeNode]) -> None:
    first, second = nodes
    assert await decided(board) == first.edge.name
    assert second.asked == 0
    first.state = "connecting"
    assert await decided(board) == second.edge.name


async def test_a_question_ends_the_pauses_of_all_edges_where_none_is_connected(
    board: Switchboard, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = nodes
    first.state = "connecting"
    assert await decided(board) == second.edge.name
    assert (first.wants, second.wants) == (0, 0)
    second.state = "connecting"
    await decided(board)
    assert (first.wants, second.wants) == (1, 1)


async def test_a_slow_edge_is_looked_at_and_asked_last(board: Switchboard, nodes: list[FakeNode]) -> None:
    first, second = nodes
    first.answer.clear()
    assert await decided(board) == second.edge.name
    assert first.doubted == 1
    assert await decided(board) == second.edge.name
    assert first.asked == 1


@pytest.mark.parametrize("reason", [Reason.JUDGE_AWAY, Reason.TUNNEL_DOWN])
async def test_what_another_edge_may_not_share_is_asked_there(
    board: Switchboard, nodes: list[FakeNode], reason: Reason
) -> None:
    first, second = nodes
    first.denies = reason
    assert await decided(board) == second.edge.name
    second.denies = reason
    with pytest.raises(DeniedError) as error:
        await decided(board)
    assert error.value.reason is reason


async def test_a_slow_edge_is_not_waited_for_when_the_others_can_not(
    board: Switchboard, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard, "LAST", 0.01)
    first, second = nodes
    first.answer.clear()
    board.avoid(cast(Node, first))
    second.denies = Reason.JUDGE_AWAY
    async with asyncio.timeout(10):
        with pytest.raises(DeniedError):
            await decided(board)
    assert first.asked == 1


async def test_a_no_of_the_judge_is_everybodys(board: Switchboard, nodes: list[FakeNode]) -> None:
    nodes[0].denies = Reason.NO_ROUTE
    with pytest.raises(DeniedError) as error:
        await decided(board)
    assert error.value.reason is Reason.NO_ROUTE
    assert nodes[1].asked == 0


async def test_a_circuit_that_comes_late_is_given_back(board: Switchboard, nodes: list[FakeNode]) -> None:
    first, second = nodes
    first.answer.clear()
    circuit, _ = await board.for_tunnel("office").ask(0, b"peer", b"pass", ())
    assert circuit.circuit == second.edge.name.encode()
    first.answer.set()
    async with asyncio.timeout(10):
        assert await first.dropped.get() == first.edge.name.encode()
    assert second.dropped.empty()


async def test_nobody_is_there(board: Switchboard, nodes: list[FakeNode]) -> None:
    for node in nodes:
        node.state, node.answers, node.denies = "connecting", False, Reason.JUDGE_AWAY
    with pytest.raises(DeniedError) as error:
        await decided(board)
    assert error.value.reason is Reason.JUDGE_AWAY
    assert not board.others(cast(Node, nodes[0]))


async def test_circuits_are_asked_for_where_the_tunnels_connectors_are() -> None:
    """Of those every device has an order of its own; the others come last."""
    nodes = cast(list[Node], [FakeNode(name) for name in "abcdef"])
    edges = EdgeList(1, tuple(node.edge for node in nodes))
    there = set(serving("office", edges).edges)
    boards = [Switchboard(f"device{number}", lambda: nodes, lambda: edges, reach) for number in range(20)]
    orders = [[node.edge for node in board.nodes_for("office")] for board in boards]
    assert all(set(order[: len(there)]) == there and len(order) == len(nodes) for order in orders)
    assert len({order[0] for order in orders}) == len(there)
