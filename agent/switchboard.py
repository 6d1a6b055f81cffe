"""Which edge is asked: the first in the device's own order that is connected, and the next where it does not answer.

A question that has no answer after `HEDGE` goes to the next edge too, and the first answer counts. An edge that was
slower than the next one is asked last for a while, and looked at: whether it still is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar

from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.aio.edges import rendezvous, serving
from warren.fabric.aio.node import Node
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages import session as say
from warren.fabric.core.messages.attachment import Circuit
from warren.fabric.core.reasons import Reason
from warren.fabric.identity.statements import EdgeList

HEDGE = 0.25
"""Seconds until the next edge is asked too (protocol.md, section 3)."""
SLOW = 5.0
"""Seconds for which an edge that did not answer is asked last."""
LAST = 1.0
"""Seconds for an edge that did not answer lately, when all others have said that they can't."""
COMES_BACK, LOOK_AGAIN = 2.0, 0.1
"""Seconds for which a flow that is to open waits for an edge, after the laptop's sleep or the edge's restart, and
between two looks."""
ELSEWHERE = frozenset({Reason.JUDGE_AWAY, Reason.TUNNEL_DOWN})
"""Answers of one edge that another one may not share."""

T = TypeVar("T")


class Switchboard:
    """Asks edges; what `Decisions`, `DnsFront` and `Peers` ask for, as a `Node` has it."""

    def __init__(
        self,
        key: str,
        nodes: Callable[[], Sequence[Node]],
        edges: Callable[[], EdgeList],
        reach: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        """`key`: what the order of edges is made from. `edges`: the network's; `nodes`: of those that the device is
        attached to. `reach(tunnel)`: attaches it to some that the tunnel's connectors are attached to, if it can."""
        self._key = key
        self._reach = reach
        self._nodes = nodes
        self._edges = edges
        self._slow: dict[Node, float] = {}
        self._left: set[asyncio.Task[tuple[Circuit, CircuitSocket]]] = set()

    async def decide(
        self, protocol: str, port: int, *, address: str = "", host: str = "", resolver: str = ""
    ) -> say.Granted:
        """May this flow open? Where an edge has just been lost the flow waits a little: it may be coming back. Raises
        DeniedError."""
        loop = asyncio.get_running_loop()
        until: float | None = None
        while True:
            try:
                return await self._first(
                    lambda node: node.judge.decide(protocol, port, address=address, host=host, resolver=resolver)
                )
            except DeniedError as error:
                coming = any(node.state != "connected" and node.refused is None for node in self._nodes())
                until = until or loop.time() + COMES_BACK
                if error.reason is not Reason.JUDGE_AWAY or not coming or loop.time() >= until:
                    raise
            await asyncio.sleep(LOOK_AGAIN)

    async def choose(self, vnet: str) -> None:
        """A virtual network among those that the device may choose. Raises DeniedError."""
        await self._first(lambda node: node.judge.choose(vnet))

    async def query(self, message: bytes, transport: Literal["udp", "tcp"]) -> say.Answer | say.HostRoute:
        """A DNS query. Raises DeniedError."""
        return await self._first(lambda node: node.judge.query(message, transport))

    def for_tunnel(self, tunnel: str) -> Circuits:
        """Where circuits to this tunnel's connectors come from."""
        return Circuits(self, tunnel)

    def nodes_for(self, tunnel: str) -> list[Node]:
        """Those that the tunnel's connectors are attached to, in this device's order, so that devices spread; then the
        others, which have a connector of it for a while after the list of edges has changed."""
        there = serving(tunnel, self._edges()).edges
        return sorted(rendezvous(self._key, self._nodes()), key=lambda node: node.edge not in there)

    async def circuit(
        self, tunnel: str, ask: Callable[[Node], Coroutine[Any, Any, tuple[Circuit, CircuitSocket]]]
    ) -> tuple[Circuit, CircuitSocket]:
        """The first that one of them gives; what comes later is given back. Raises DeniedError: TUNNEL_DOWN only where
        an edge says so that the tunnel's connectors attach to. The others can't know."""

        async def one(node: Node) -> tuple[Circuit, CircuitSocket]:
            asking = asyncio.create_task(ask(node))
            try:
                return await asyncio.shield(asking)
            except asyncio.CancelledError:
                self._give_back(node, asking)
                raise
            except DeniedError as error:
                if error.reason is Reason.TUNNEL_DOWN and node.edge not in serving(tunnel, self._edges()).edges:
                    raise DeniedError(Reason.JUDGE_AWAY, "none of the tunnel's edges answers") from None
                raise

        await self._reach(tunnel)
        return await self._first(one, self.nodes_for(tunnel))

    def others(self, node: Node) -> bool:
        """Whether another edge than this one is connected, and answers."""
        return any(other is not node and other.answers for other in self._nodes())

    def avoid(self, node: Node) -> None:
        """Its edge does not answer: it is asked last for a while."""
        self._slow[node] = asyncio.get_running_loop().time() + SLOW

    def _order(self, nodes: list[Node]) -> list[Node]:
        now = asyncio.get_running_loop().time()
        self._slow = {node: until for node, until in self._slow.items() if until > now and node in nodes}
        able = [node for node in nodes if node.state == "connected"]
        for node in nodes if not able else ():
            node.wanted()
        able = able or nodes[:1]
        return sorted(able, key=lambda node: node in self._slow)

    async def _first(self, ask: Callable[[Node], Coroutine[Any, Any, T]], nodes: list[Node] | None = None) -> T:
        waiting = self._order(nodes or rendezvous(self._key, self._nodes()))
        running: dict[asyncio.Task[T], Node] = {}
        latest: Node | None = None
        error: DeniedError | None = None
        try:
            while waiting or running:
                if latest is None and waiting:
                    latest = waiting.pop(0)
                    running[asyncio.create_task(ask(latest))] = latest
                doubtful = error is not None and all(node in self._slow for node in running.values())
                patience = HEDGE if latest is not None else LAST if doubtful else None
                done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done and latest is None:
                    break
                if not done and latest is not None and self.others(latest):
                    latest.doubt()
                latest = None  # it has answered, or had its time: the next one
                for task in [task for task in running if task in done]:  # who was asked first counts first
                    answered = running.pop(task)
                    try:
                        answer = task.result()
                    except DeniedError as denied:
                        if denied.reason not in ELSEWHERE:
                            raise
                        if error is None or error.reason is Reason.JUDGE_AWAY:
                            error = denied  # what an edge knows, rather than that another one knows nothing
                    else:
                        self._slow.pop(answered, None)
                        for node in running.values():
                            self.avoid(node)
                        return answer
            raise error or DeniedError(Reason.JUDGE_AWAY)
        finally:
            for task in running:
                if not task.cancel() and not task.cancelled():
                    task.exception()  # its answer came together with the one that counts

    def _give_back(self, node: Node, asking: asyncio.Task[tuple[Circuit, CircuitSocket]]) -> None:
        """A circuit that comes after another edge's is not used."""
        self._left.add(asking)

        def settled(task: asyncio.Task[tuple[Circuit, CircuitSocket]]) -> None:
            self._left.discard(task)
            if not task.cancelled() and task.exception() is None:
                node.drop(task.result()[0].circuit, Reason.CANCELLED)

        asking.add_done_callback(settled)


class Circuits:
    """Circuits to one tunnel's connectors (`peers.Switches`)."""

    def __init__(self, board: Switchboard, tunnel: str) -> None:
        self._board, self._tunnel = board, tunnel

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> say.Granted:
        """May this flow open? Raises DeniedError."""
        return await self._board.decide(protocol, port, address=address, host=host)

    async def ask(
        self,
        index: int,
        peer: bytes,
        permit: bytes,
        tried: tuple[bytes, ...],
        boot: bytes = b"",
        *,
        patient: bool = True,
    ) -> tuple[Circuit, CircuitSocket]:
        """A circuit for a peer connection. Raises DeniedError."""

        def one(node: Node) -> Coroutine[Any, Any, tuple[Circuit, CircuitSocket]]:
            return node.ask(index, peer, permit, tried, boot, patient=patient)

        return await self._board.circuit(self._tunnel, one)
