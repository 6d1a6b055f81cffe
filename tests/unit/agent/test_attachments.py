"""Which edges a device is attached to."""

from __future__ import annotations

from warren.agent.attachments import IN_ALL, OF_TUNNEL, choose
from warren.fabric.aio.edges import ATTACHED, in_order, serving
from warren.fabric.identity.statements import Edge, EdgeList

LIST = EdgeList(1, tuple(Edge(f"{number:020}", f"e{number}.example", 4433) for number in range(12)))
TUNNELS = [f"tunnel{number}" for number in range(20)]


def all_answer(edge: Edge) -> bool:
    return True


def test_the_first_of_its_own_order_while_there_is_no_tunnel() -> None:
    assert choose("device", LIST, (), all_answer) == set(in_order("device", LIST.edges)[:IN_ALL])
    assert len({edge for n in range(50) for edge in choose(f"device{n}", LIST, (), all_answer)}) == len(LIST.edges)


def test_all_of_a_short_list() -> None:
    few = EdgeList(1, LIST.edges[:IN_ALL])
    assert choose("device", few, TUNNELS, all_answer) == set(few.edges)


def test_a_tunnels_edges_and_no_others() -> None:
    for tunnel in TUNNELS:
        chosen = choose("device", LIST, [tunnel], all_answer)
        assert chosen == set(serving(tunnel, LIST).edges)


def test_tunnels_share_edges_where_they_can() -> None:
    chosen = choose("device", LIST, TUNNELS, all_answer)
    for tunnel in TUNNELS:
        assert len(chosen & set(serving(tunnel, LIST).edges)) >= OF_TUNNEL
    assert choose("device", LIST, reversed(TUNNELS), all_answer) == chosen
    near = [tunnel for tunnel in TUNNELS if len(set(serving(tunnel, LIST).edges) & set(LIST.edges[:4])) == ATTACHED]
    assert len(choose("device", LIST, near, all_answer)) <= 4


def test_another_one_beside_each_that_does_not_answer_as_far_as_there_are_some() -> None:
    own = in_order("device", LIST.edges)
    for dead in range(len(own) + 1):
        chosen = choose("device", LIST, (), lambda edge, dead=dead: edge not in own[:dead])  # type: ignore[misc]
        assert chosen == set(own[: dead + IN_ALL])
    there = serving("office", LIST).edges
    chosen = choose("device", LIST, ["office"], lambda edge: edge not in there)
    assert set(there) < chosen and len(chosen) == ATTACHED + IN_ALL
