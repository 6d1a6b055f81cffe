"""What must be true of the whole world: the failure table (docs/architecture.md) as a model of a few facts.

A flow may be reset for one of these reasons only: its app or its origin did it, its connector's or agent's process was
killed, its route was deleted, or no way between the two has been fit for longer than the hold times. A way through an
edge is fit once it has worked for SETTLED seconds without a break.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.sim.origins import App, TcpOrigin
from tests.sim.whole_world import Whole
from warren.agent.peers import CONNECTIONS
from warren.fabric.aio.edges import serving
from warren.fabric.core.paths import CIRCUITS

SETTLED = 20.0
"""Seconds after which everything has found a way that is back: a node's longest pause between attempts, and some."""
HOLD = 45.0
"""Seconds for which flows live in any case while an edge that the agent reaches reports their connector gone: the
agent's hold time, less what it takes to find a way again."""
LEASE = 500.0
"""Seconds for which they live while no edge says so: the lease, less as much."""

IDLE = 120.0
"""Seconds after which a connector may end a flow of datagrams that carries none: it takes 180, some of them to mend."""
STILL = 50.0
"""Seconds after which none is counted any more while one end stands still, or its line is dark: it takes 30 from the
last packet, of which there is one each 20."""


@dataclass
class Trouble:
    """How long no way to one connector has been fit."""

    settled: dict[int, float] = field(default_factory=dict)
    """By edge: how long the way through it has worked."""
    since: float | None = None
    """Since when none is fit."""
    still: float = 0.0
    """How long one end of it has neither heard nor said anything."""
    blamed: bool = False
    """An edge that the agent hears has lost the connector meanwhile. (That the edge does not hear the agent is no
    matter: it says so by itself.)"""

    def too_long(self, app: App, now: float) -> bool:
        """Whether a flow may have been given up."""
        if self.since is None or app.connector is None:
            return False
        return now - max(self.since, app.dialled) > (HOLD if self.blamed else LEASE)


class Reference:
    """Follows the world by what is done to it, not by what it says."""

    def __init__(self, world: Whole) -> None:
        self.world = world
        there = serving(world.made.tunnel, world.listed).edges
        self._edges = [number for number, edge in enumerate(world.listed.edges) if edge in there]
        """Those that the connectors attach to: no way leads through the others, and they know nothing."""
        self.trouble = [Trouble(dict.fromkeys(self._edges, SETTLED)) for _ in world.connectors]
        self.freed: set[App] = set()
        """Flows that were without a way for too long."""
        self._rested: dict[App, float] = {}
        """Flows of datagrams, and how long none has gone both ways, as far as that is counted."""

    # ---- time ----

    def passes(self, seconds: float) -> None:
        """So much time goes by in the world as it is now."""
        for index, trouble in enumerate(self.trouble):
            self._passes(index, trouble, seconds)
            now, host = self.world.network.now, self.world.connector_hosts[index]
            there = (app for app in self.world.apps if app.connector is not None and app.connector.host is host)
            for app in there:
                if trouble.too_long(app, now):
                    self.freed.add(app)
                counted = seconds if trouble.still <= STILL else 0.0
                self._rested[app] = 0.0 if now - app.used <= seconds else self._rested.get(app, 0.0) + counted

    def _passes(self, index: int, trouble: Trouble, seconds: float) -> None:
        edges = self._edges
        works = {edge: self._agent_reaches(edge) and self._connector_reaches(index, edge) for edge in edges}
        trouble.still = trouble.still + seconds if self._still(index) else 0.0
        fit = any(works[edge] and trouble.settled[edge] >= SETTLED for edge in edges)
        for edge in edges:
            trouble.settled[edge] = trouble.settled[edge] + seconds if works[edge] else 0.0
        if fit:
            trouble.since, trouble.blamed = None, False
            return
        if trouble.since is None:
            trouble.since = self.world.network.now - seconds
        trouble.blamed |= any(self._agent_hears(e) and not self._connector_reaches(index, e) for e in edges)

    def _still(self, index: int) -> bool:
        ends = (
            (self.world.agent, self.world.agent_host),
            (self.world.connectors[index], self.world.connector_hosts[index]),
        )
        frozen = any(end is not None and end[0].frozen for end, _ in ends)
        return frozen or any(not host.up.up and not host.down.up for _, host in ends)

    def _agent_reaches(self, edge: int) -> bool:
        return self._reaches(self.world.agent, self.world.agent_host, edge)

    def _agent_hears(self, edge: int) -> bool:
        found, agent = self.world.edges[edge], self.world.agent
        if found is None or agent is None or found[0].frozen or agent[0].frozen:
            return False
        return self.world.network.passes(self.world.edge_hosts[edge], self.world.agent_host)

    def _connector_reaches(self, index: int, edge: int) -> bool:
        return self._reaches(self.world.connectors[index], self.world.connector_hosts[index], edge)

    def _reaches(self, node: object, host: object, edge: int) -> bool:
        there = self.world.edges[edge]
        if there is None or node is None or there[0].frozen or node[0].frozen:  # type: ignore[index]
            return False
        return self.world.reaches(host, edge)  # type: ignore[arg-type]

    # ---- flows ----

    def may_end(self, app: App) -> bool:
        """Whether a reset is right, on either side."""
        origin = app.origin
        done = app.ending == "reset" or (isinstance(origin, TcpOrigin) and origin.was_reset)
        return done or self.rests(app) or self.must_end(app) or app in self.freed

    def rests(self, app: App) -> bool:
        """Whether it is a flow of datagrams that may be over, as none has gone by for long."""
        return app.protocol == "udp" and self._rested.get(app, 0.0) > IDLE

    def must_end(self, app: App) -> bool:
        """Whether it can't live on."""
        gone = not app.process.alive or app.connector is None or not app.connector.alive
        return gone or app.route != self.world.truth.route

    def lives(self, app: App) -> bool:
        """Whether it has to carry bytes once everything works."""
        return app.flow is not None and app.flow.opened and not self.may_end(app)

    # ---- what is wrong ----

    def wrong(self) -> str:
        """The first thing that must not be, in words; "": nothing."""
        faults = self.world.faults()
        if faults:
            return faults[0]
        for app in self.world.apps:
            what = app.wrong or app.up.wrong or app.down.wrong or self._lost(app)
            if what:
                return f"flow {app.number}: {what}"
        return self._beyond_bounds()

    def _lost(self, app: App) -> str:
        if app.flow is None or not app.flow.opened or self.may_end(app):
            return ""
        if app.saw == "reset":
            return "the app saw a reset for no reason"
        if isinstance(app.origin, TcpOrigin) and app.origin.saw == "reset":
            return "the origin saw a reset for no reason"
        if app.saw == "end" and isinstance(app.origin, TcpOrigin) and not app.origin.ended:
            return "the app saw an end that the origin did not make"
        return ""

    def _beyond_bounds(self) -> str:
        for app in self.world.apps:
            if app.most_buffered > app.window:
                return f"flow {app.number}: {app.most_buffered} bytes wait for the app"
        for index, found in enumerate(self.world.edges):
            if found is not None and (what := _too_much(found[1].circuits, self.world)):
                return f"edge {index}: {what}"
        if self.world.agent is not None:
            states = self.world.agent[1].peers.states()
            if len(states) > 2 * CONNECTIONS:
                return f"{len(states)} peer connections"
        return ""


def _too_much(circuits: object, world: Whole) -> str:
    """Beyond its limits, or far more than this world can have use for."""
    limits = circuits.limits  # type: ignore[attr-defined]
    for node, slots in circuits._of_node.items():  # type: ignore[attr-defined]
        if len(slots) > limits.slots_per_node:
            return f"{len(slots)} slots of {node.hex()[:8]}"
        if sum(len(slot.circuits) for slot in slots) > 64 * CIRCUITS:
            return f"{sum(len(slot.circuits) for slot in slots)} circuits of {node.hex()[:8]}"
        if any(len(slot.missed) > limits.circuits_per_agent for slot in slots):
            return f"missed ends kept for {node.hex()[:8]}"
    waiting = circuits._waiting, circuits._messages  # type: ignore[attr-defined]
    if any(len(queue) > 256 for queue in waiting):
        return "messages or asks that wait"
    return ""
