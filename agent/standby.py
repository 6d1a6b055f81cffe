"""Standby circuits: each living peer connection has one through another edge, asked for in advance.

An edge is asked once this host's slot there is bound, so that the circuit has its full size from the start; it offers
the circuit to the same connector process only. One that has no such connector is asked again, ever more rarely.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import structlog

from warren.agent.decisions import Judge
from warren.agent.peer_state import PeerState
from warren.agent.peers import Peers, Switch, permit_for
from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.core.backoff import Backoff
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.attachment import Circuit
from warren.fabric.core.paths import CIRCUITS
from warren.fabric.core.reasons import Reason

log = structlog.get_logger()

USABLE = 2
"""Circuits of a peer connection whose other end is there: the leading one and a standby."""
LOOK_EVERY = 0.5
"""Seconds between looks at which peer connections lack one."""
AGAIN = (1.0, 30.0)
"""Seconds until the next attempt, first and longest."""


class Node(Switch, Protocol):
    """One edge (fabric/aio/node.py)."""

    state: str
    sockets: list[CircuitSocket]

    @property
    def judge(self) -> Judge: ...


class _Attempts:
    """What is under way for one peer connection."""

    def __init__(self) -> None:
        self.backoff = Backoff(*AGAIN)
        self.at = 0.0
        self.task: asyncio.Task[None] | None = None


class Standbys:
    """Asks for them. `start` it, `close` it."""

    def __init__(self, peers: Peers, switches: Callable[[str], Sequence[Node]]) -> None:
        """`switches`: by the tunnel's id, all edges, first those that its connectors are attached to."""
        self._peers = peers
        self._switches = switches
        self._attempts: dict[PeerState, _Attempts] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for attempts in self._attempts.values():
            if attempts.task is not None:
                attempts.task.cancel()

    def _look(self) -> None:
        self.start()
        asking = [state for state, attempts in self._attempts.items() if attempts.task is not None]
        self._attempts = {
            state: self._attempts.get(state) or _Attempts() for state in dict.fromkeys([*self._peers.states(), *asking])
        }
        for state, attempts in self._attempts.items():
            if self._lacks(state) and attempts.task is None and self._loop.time() >= attempts.at:
                switch = self._choose(state)
                if switch is not None:
                    attempts.task = asyncio.create_task(self._settle(attempts, self._ask(state, switch, attempts)))

    def _lacks(self, state: PeerState) -> bool:
        if state.path is None or state.peer is None or not state.peer.ready or state.peer.closed or state.gone:
            return False
        return len(state.path.ways) < CIRCUITS - 1 and state.path.counting < USABLE

    def _choose(self, state: PeerState) -> Node | None:
        """The first edge, in the order for this tunnel, that is connected and has no circuit of this connection."""
        assert state.path is not None
        for switch in self._switches(state.tunnel):
            if switch.state == "connected" and len(switch.sockets) > state.index:
                socket = switch.sockets[state.index]
                if socket.slot is not None and socket.slot.bound and state.path.through(socket) is None:
                    return switch
        return None

    async def _ask(self, state: PeerState, switch: Node, attempts: _Attempts) -> None:
        try:
            given, socket = await self._asked(state, switch)
        except DeniedError as error:
            attempts.at = self._loop.time() + attempts.backoff.next()
            log.debug("no standby circuit", tunnel=state.tunnel_name, reason=error.reason.word)
            return
        attempts.backoff.reset()
        if state.path is not None and state.peer is not None and not state.peer.closed:
            state.path.add(socket, given.circuit, given.size)
            log.info("standby circuit", tunnel=state.tunnel_name, edge=str(socket.switch))

    async def _asked(self, state: PeerState, switch: Node) -> tuple[Circuit, CircuitSocket]:
        """Once more with another pass where this edge holds the present one for expired: clocks differ."""
        ask = (state.index, state.id)
        try:
            return await switch.ask(*ask, state.permit, (), state.boot, patient=False)
        except DeniedError as error:
            if error.reason is not Reason.GRANT_EXPIRED:
                raise
            return await switch.ask(*ask, await permit_for(state, switch.judge), (), state.boot, patient=False)

    async def _settle(self, attempts: _Attempts, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            attempts.task = None
