"""A node shows another identity: its successor takes the slots over, or nothing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from warren.fabric.aio import node as module
from warren.fabric.aio.node import Node
from warren.fabric.aio.owner import Identity
from warren.fabric.core.reasons import Reason
from warren.fabric.engines import engine
from warren.fabric.identity.statements import Edge

BEFORE = Identity("connector", b"k" * 32, lambda label, challenge, leaf: b"", b"network", statement=b"before")
AFTER = replace(BEFORE, statement=b"after")


class Socket:
    """A circuit socket, as far as a handover touches it."""

    def __init__(self) -> None:
        self.keeper: Node | None = None
        self.lost = self.closed = 0

    def attachment_lost(self) -> None:
        self.lost += 1

    def close(self) -> None:
        self.closed += 1


async def renew(monkeypatch: pytest.MonkeyPatch, successor: Callable[[Node], None], **state: Any) -> tuple[Any, ...]:
    """(what came of it, the node, its socket). `successor`: what happens when it is started."""
    node = Node(engine(), BEFORE, Edge("e" * 20, "edge.example.net", 4433), cast("Any", None))
    socket = Socket()
    node.state, node._where.address, node.sockets = "connected", ("192.0.2.1", 4433), [cast("Any", socket)]
    node._call = cast("Any", object())
    for name, value in state.items():
        setattr(node, name, value)
    monkeypatch.setattr(module, "ANSWER_TIME", 0.05)
    monkeypatch.setattr(Node, "start", successor)
    return await node.renewed(AFTER), node, socket


def connects(successor: Node) -> None:
    successor.state = "connected"
    successor._settled.set()


def is_refused(successor: Node) -> None:
    successor.refused = Reason.WRONG_TUNNEL
    successor._settled.set()


def hears_nothing(successor: Node) -> None:
    pass


def test_the_successor_has_slots_and_boot_id(monkeypatch: pytest.MonkeyPatch) -> None:
    found, node, socket = asyncio.run(renew(monkeypatch, connects))
    assert (found.boot, found.sockets, node.sockets) == (node.boot, [socket], [])
    assert found.shown is AFTER
    assert socket.keeper is found
    assert (socket.lost, socket.closed) == (0, 0)


def test_what_the_edge_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found, node, socket = asyncio.run(renew(monkeypatch, is_refused))
    assert found is Reason.WRONG_TUNNEL
    assert (node.state, node.sockets, node._identity, node._held) == ("connected", [socket], BEFORE, False)
    assert (socket.lost, socket.closed) == (0, 0)


def test_an_edge_that_does_not_answer_is_shown_it_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found, node, socket = asyncio.run(renew(monkeypatch, hears_nothing))
    assert found is node
    assert (node._identity, node.sockets, node._held, socket.lost) == (AFTER, [socket], False, 0)
    found, node, socket = asyncio.run(renew(monkeypatch, hears_nothing, state="connecting"))
    assert (found, node._identity) == (node, AFTER)


def test_an_attachment_that_was_lost_meanwhile_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    _, node, socket = asyncio.run(renew(monkeypatch, hears_nothing, _call=None))
    assert (node.state, node._held, socket.lost, socket.closed) == ("connecting", False, 1, 0)


def test_why_it_is_not_connected_is_told_once_and_a_refusal_as_a_warning() -> None:
    class Told:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *words: None

    async def fail() -> list[tuple[str, str]]:
        node = Node(engine(), BEFORE, Edge("e" * 20, "edge.example.net", 4433), cast("Any", Told()))
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                node._away(Reason.WRONG_TUNNEL, "refused")
                node._away(Reason.WRONG_TUNNEL, "refused: its token was replaced")
            node._away(Reason.JUDGE_AWAY, "no answer")
        return [(line["log_level"], line["detail"]) for line in lines]

    assert asyncio.run(fail()) == [
        ("warning", "refused"),
        ("warning", "refused: its token was replaced"),
        ("info", "no answer"),
    ]


@pytest.mark.anyio
async def test_an_edge_that_does_not_answer_counts_for_nothing_until_something_comes_from_it() -> None:
    told: list[Node] = []
    owner = cast("Any", SimpleNamespace(silent=told.append))
    node = Node(engine(), BEFORE, Edge("e" * 20, "edge.example.net", 4433), owner)
    one = SimpleNamespace(heard=0.0)
    node.state, node.sockets = "connected", [cast("Any", one)]
    assert node.answers
    node._silent()
    assert told == [node] and not node.answers
    one.heard = node._loop.time() + 1
    assert node.answers
    node.state = "connecting"
    assert not node.answers


def test_who_asks_ends_a_pause_but_not_that_of_an_edge_which_turns_us_away() -> None:
    async def main() -> None:
        owner = SimpleNamespace(disconnected=lambda reason, detail: None, silent=lambda node: None)
        node = Node(engine(), BEFORE, Edge("e" * 20, "edge.example.net", 4433), cast("Any", owner))
        node._away(Reason.LIMIT, "full")
        node.wanted()
        assert (node.refused, node._at_once.is_set()) == (Reason.LIMIT, False)
        node._away(Reason.JUDGE_AWAY, "it does not answer")
        node.wanted()
        assert (node.refused, node._at_once.is_set()) == (None, True)
        node._at_once.clear()
        node.wanted()
        assert not node._at_once.is_set()  # within the same second

    asyncio.run(main())
