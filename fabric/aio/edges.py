"""The edges that a node knows: one of something for each, made and ended as the network's signed list changes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import structlog

from warren.fabric.core.errors import DeniedError
from warren.fabric.identity.statements import Edge, EdgeList, verify_edges

ATTACHED = 3
"""Edges that the connectors of one tunnel attach to, where there are more: two that agents use, so that each peer
connection has a standby circuit, and one more for while one of them is away."""
LINGER = 60.0
"""Seconds for which what belongs to a removed edge stays: its circuits are replaced meanwhile."""

log = structlog.get_logger()


class OfEdge(Protocol):
    """What there is one of for each edge: a node, a connection that shows presence."""

    edge: Edge

    def start(self) -> None: ...

    async def close(self) -> None: ...


T = TypeVar("T", bound=OfEdge)


class Newest:
    """The newest list of edges that was seen. `network`: DER of the certificate whose key signs it."""

    def __init__(self, network: bytes, edges: EdgeList) -> None:
        self.edges = edges
        self._network = network

    def take(self, signed: bytes) -> bool:
        """Whether this one is newer. What the network key did not sign is nothing, and logged."""
        try:
            said = verify_edges(signed, self._network)
        except DeniedError as error:
            log.warning("an edge told a list of edges that does not hold", detail=error.detail)
            return False
        if said.revision <= self.edges.revision:
            return False
        self.edges = said
        log.info("edges", revision=said.revision, edges=", ".join(str(edge) for edge in said.edges))
        return True


class PerEdge(Generic[T]):
    """One for each edge of the list, in its order; those of removed edges end after `LINGER`."""

    def __init__(
        self, make: Callable[[Edge], T], edges: EdgeList, leaving: Callable[[T], None] = lambda _: None
    ) -> None:
        """`leaving(one)`: its edge was removed; it still works for a while."""
        self._make = make
        self._leaving = leaving
        self.all = [make(edge) for edge in edges.edges]
        self._old: dict[T, asyncio.TimerHandle] = {}
        """Those that end soon."""
        self._closing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        for one in self.all:
            one.start()

    def follow(self, edges: EdgeList) -> None:
        """The list has changed: those whose edge is the same stay as they are; one that was to end is taken back."""
        known = {one.edge: one for one in [*self._old, *self.all]}
        made = {edge: self._make(edge) for edge in edges.edges if edge not in known}
        gone = [one for one in self.all if one.edge not in edges.edges]
        self.all = [known.get(edge) or made[edge] for edge in edges.edges]
        for one in self.all:
            if (ending := self._old.pop(one, None)) is not None:
                ending.cancel()
        for one in made.values():
            one.start()
        for one in gone:
            self._old[one] = asyncio.get_running_loop().call_later(LINGER, self._end, one)
            self._leaving(one)

    def _end(self, one: T) -> None:
        del self._old[one]
        task = asyncio.create_task(one.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Ends all of them."""
        for ending in self._old.values():
            ending.cancel()
        for one in [*self.all, *self._old]:
            await one.close()
        await asyncio.gather(*self._closing, return_exceptions=True)


def rendezvous(key: str, edges: Iterable[T]) -> list[T]:
    """In the order in which whatever `key` names uses edges: the same at every node, another for every key."""
    return sorted(edges, key=lambda one: _weight(key, one.edge), reverse=True)


def in_order(key: str, edges: Iterable[Edge]) -> list[Edge]:
    """The same, of edges."""
    return sorted(edges, key=lambda edge: _weight(key, edge), reverse=True)


def serving(tunnel: str, edges: EdgeList) -> EdgeList:
    """The edges that a tunnel's connectors attach to, in the tunnel's order: the same at every node. When the list
    changes by one edge, so does this one at most."""
    return EdgeList(edges.revision, tuple(in_order(tunnel, edges.edges)[:ATTACHED]))


def _weight(key: str, edge: Edge) -> bytes:
    return hashlib.sha256(f"{key}/{edge.id}".encode()).digest()
