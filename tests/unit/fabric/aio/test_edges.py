"""The list of edges that a node follows: the newest that the network key has signed."""

from __future__ import annotations

import asyncio

import pytest

from warren.fabric.aio import edges as module
from warren.fabric.aio.edges import ATTACHED, Newest, PerEdge, rendezvous, serving
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.statements import Edge, EdgeList, sign_edges

pytestmark = pytest.mark.anyio
FIRST, SECOND, THIRD = (Edge(name * 8, f"{name}.example", 4433, name) for name in "abc")


class One:
    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.running = False
        self.closed = asyncio.Event()

    def start(self) -> None:
        self.running = True

    async def close(self) -> None:
        self.closed.set()


def test_only_what_is_newer_and_signed_counts() -> None:
    key = keys.generate()
    newest = Newest(certificates.make_network(key), EdgeList(2, (FIRST,)))
    assert not newest.take(sign_edges(key, EdgeList(2, (FIRST, SECOND))))
    assert not newest.take(sign_edges(key, EdgeList(1, (SECOND,))))
    assert not newest.take(sign_edges(keys.generate(), EdgeList(3, (SECOND,))))
    assert not newest.take(b"nonsense")
    assert newest.edges.edges == (FIRST,)
    assert newest.take(sign_edges(key, EdgeList(3, (FIRST, SECOND))))
    assert newest.edges.edges == (FIRST, SECOND)


async def test_what_stays_stays_and_what_is_removed_ends_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.01)
    left: list[One] = []
    all_of = PerEdge(One, EdgeList(1, (FIRST, SECOND)), left.append)
    all_of.start()
    first, second = all_of.all
    all_of.follow(EdgeList(2, (THIRD, FIRST)))
    third, again = all_of.all
    assert again is first
    assert (third.edge, third.running) == (THIRD, True)
    assert left == [second]
    async with asyncio.timeout(10):
        await second.closed.wait()
    assert not first.closed.is_set()
    await all_of.close()
    assert first.closed.is_set() and third.closed.is_set()


async def test_the_order_is_the_same_everywhere_and_spread() -> None:
    nodes = [One(edge) for edge in (FIRST, SECOND, THIRD)]
    for key in ("x", "y"):
        assert rendezvous(key, nodes) == rendezvous(key, reversed(nodes))
    assert len({rendezvous(str(key), nodes)[0].edge for key in range(50)}) == 3


def test_a_tunnel_is_served_by_some_edges_and_one_more_or_less_moves_one() -> None:
    edges = tuple(Edge(f"{number:020}", "edge.example", 4433) for number in range(8))
    few = EdgeList(1, edges[:ATTACHED])
    assert set(serving("office", few).edges) == set(few.edges)
    before = serving("office", EdgeList(1, edges)).edges
    assert len(before) == ATTACHED
    assert serving("office", EdgeList(1, edges[::-1])).edges == before
    for edge in edges:
        after = serving("office", EdgeList(2, tuple(one for one in edges if one != edge))).edges
        assert len(set(before) - set(after)) == (edge in before)
    assert len({edge for number in range(50) for edge in serving(str(number), EdgeList(1, edges)).edges}) == len(edges)


async def test_one_that_was_to_end_is_taken_back() -> None:
    made = list[One]()

    def make(edge: Edge) -> One:
        made.append(One(edge))
        return made[-1]

    both, first = EdgeList(1, (FIRST, SECOND)), EdgeList(2, (FIRST,))
    nodes = PerEdge(make, both)
    nodes.start()
    nodes.follow(first)
    nodes.follow(both)
    assert len(made) == 2 and [one.edge for one in nodes.all] == [FIRST, SECOND] and not nodes._old
    await nodes.close()
