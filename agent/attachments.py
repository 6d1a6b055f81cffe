"""Which edges this device is attached to: no more than it has a use for.

Every edge judges and answers names. A circuit leads through an edge that a connector of its tunnel is attached to, one
of three of the list (fabric/aio/edges.py). So each tunnel that there is a peer connection to has two of its three, one
to lead and one for a standby circuit; where that makes fewer than three in all, others of those tunnels come first, and
then the first of the device's own order. An edge that does not answer counts for nothing: the next one is attached to
beside it, until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from warren.fabric.aio.edges import PerEdge, in_order, serving
from warren.fabric.aio.node import Node
from warren.fabric.identity.statements import Edge, EdgeList

OF_TUNNEL, IN_ALL = 2, 3
"""Edges that answer. The third is there at once when both others die together."""
LOOK_EVERY = 1.0
"""Seconds between two looks which edges there is a use for."""
FRESH = 3.0
"""Seconds that an edge has to answer in before another one is attached to, too."""
KEEP = 60.0
"""Seconds for which an edge stays attached to after its last use: others may go away again."""


def choose(key: str, edges: EdgeList, tunnels: Iterable[str], able: Callable[[Edge], bool]) -> set[Edge]:
    """The edges to attach to; all, where there are three. `key`: what the device's own order is made from.
    `able(edge)`: it answers, as far as is known."""
    chosen: set[Edge] = set()

    def take(order: Iterable[Edge], enough: int) -> None:
        good = 0
        for edge in sorted(order, key=lambda edge: edge not in chosen):
            if good < enough:
                chosen.add(edge)
                good += able(edge)

    own = in_order(key, edges.edges)
    theirs = [set(serving(tunnel, edges).edges) for tunnel in sorted(set(tunnels))]
    for there in theirs:
        take((edge for edge in own if edge in there), OF_TUNNEL)
    useful = set[Edge]().union(*theirs)
    take(sorted(own, key=lambda edge: edge not in useful), IN_ALL)
    return chosen


class Attachments:
    """A node for each of them. `start` it, `close` it."""

    def __init__(
        self,
        key: str,
        edges: EdgeList,
        make: Callable[[Edge], Node],
        leaving: Callable[[Node], None],
        tunnels: Callable[[], Iterable[str]],
    ) -> None:
        """`edges`: the network's. `leaving(node)`: it is given up, and works for a while. `tunnels()`: the ids of those
        that there are peer connections to."""
        self._key, self._edges, self._tunnels = key, edges, tunnels
        self._loop = asyncio.get_running_loop()
        self._used = dict.fromkeys(choose(key, edges, (), lambda edge: True), self._loop.time())
        """Edges, and when each was chosen last."""
        self._since = dict(self._used)
        """Since when there is a node for it."""
        self._nodes = PerEdge(make, self._of(self._used), leaving)
        self._timer: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        """Another edge is connected."""

    @property
    def nodes(self) -> list[Node]:
        return self._nodes.all

    def start(self) -> None:
        self._nodes.start()
        self._timer = self._loop.call_later(LOOK_EVERY, self._again)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._nodes.close()

    def follow(self, edges: EdgeList) -> None:
        """The network has another list."""
        self._edges = edges
        self._look()

    def connected(self) -> None:
        """An edge is: whoever waits for one looks whether it is his."""
        self._news.set()
        self._news = asyncio.Event()

    async def reach(self, tunnel: str) -> None:
        """Waits until an edge of the tunnel's is connected, while one may be soon."""
        self._look()
        there = serving(tunnel, self._edges).edges
        while True:
            nodes = [node for node in self.nodes if node.edge in there]
            fresh_until = max((self._since[node.edge] + FRESH for node in nodes), default=0.0)
            if any(node.state == "connected" for node in nodes) or self._loop.time() >= fresh_until:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(fresh_until):
                    await self._news.wait()

    def _of(self, wanted: Iterable[Edge]) -> EdgeList:
        kept = set(wanted)
        return EdgeList(self._edges.revision, tuple(edge for edge in self._edges.edges if edge in kept))

    def _fresh(self, edge: Edge) -> bool:
        return self._loop.time() - self._since.get(edge, self._loop.time()) < FRESH

    def _again(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY, self._again)
        self._look()

    def _look(self) -> None:
        now = self._loop.time()
        answer = {node.edge for node in self.nodes if node.answers}
        wanted = choose(self._key, self._edges, self._tunnels(), lambda edge: edge in answer or self._fresh(edge))
        self._used |= dict.fromkeys(wanted, now)
        kept = self._of(edge for edge, used in self._used.items() if now - used < KEEP)
        self._used = {edge: self._used[edge] for edge in kept.edges}
        self._since = {edge: self._since.get(edge, now) for edge in kept.edges}
        if kept.edges != tuple(node.edge for node in self.nodes):
            self._nodes.follow(kept)
