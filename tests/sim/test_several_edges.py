"""A network of seven edges: a tunnel's connectors are attached to three of them, the agent to those that it has a use
for, and everything goes on while those die one by one."""

from __future__ import annotations

import pytest

from tests.sim.reference import SETTLED
from tests.sim.script import Run, Script
from warren.agent.attachments import FRESH, IN_ALL, KEEP, LOOK_EVERY, OF_TUNNEL
from warren.agent.config import HOLD
from warren.fabric.aio.edges import ATTACHED, LINGER, in_order, serving
from warren.fabric.identity.statements import Edge

EDGES = 7
GOES_ON = 10.0


class Site:
    """What of a run these tests look at."""

    def __init__(self, run: Run) -> None:
        assert run.world.agent is not None
        self.run, self.side = run, run.world.agent[1]
        self.listed = run.world.listed.edges
        self.there = serving(run.world.made.tunnel, run.world.listed).edges

    @property
    def attached(self) -> set[Edge]:
        return {node.edge for node in self.side.nodes}

    def ways(self) -> list[Edge]:
        """Edges that the peer connection of the first flow has circuits through, the leading one first."""
        state = self.side.peers.states()[0]
        assert state.path is not None
        by_socket = {id(socket): node.edge for node in self.side.nodes for socket in node.sockets}
        return [by_socket[id(way.socket)] for way in state.path.ways if id(way.socket) in by_socket]

    def leaves_the_rest(self) -> None:
        """Long enough for everything that is not needed to go."""
        self.run.do(["run", KEEP + 2 * LOOK_EVERY])

    def goes_on(self, number: int) -> None:
        """A flow carries bytes both ways."""
        app = self.run.world.apps[number]
        self.run.do(["send", number, "up", 20_000])
        self.run.do(["send", number, "down", 20_000])
        whole = lambda: app.up.got == app.up.offered and app.down.got == app.down.offered  # noqa: E731
        assert self.run.until(whole, GOES_ON), f"flow {number} hangs with ways through {self.ways()}"

    def opens(self) -> int:
        """Another flow, which carries bytes; its number."""
        app = self.run.world.open("tcp")
        assert app is not None
        assert self.run.until(lambda: app.flow is not None and app.flow.opened, GOES_ON), app.refusal
        self.goes_on(app.number)
        return app.number

    def stands_by(self) -> None:
        assert self.run.until(lambda: len(self.ways()) >= OF_TUNNEL, GOES_ON)


def test_an_agent_is_attached_to_the_edges_of_its_tunnel() -> None:
    with Run(Script(seed=21, edges=EDGES, steps=[])) as run:
        site = Site(run)
        assert len(site.attached) == IN_ALL
        assert all(len(found[1].nodes) == ATTACHED for found in run.world.connectors if found is not None)
        site.opens()
        site.stands_by()
        assert set(site.ways()) <= set(site.there)
        site.leaves_the_rest()
        run.do(["run", LINGER])
        assert site.attached == set(site.there)
        site.goes_on(0)
        agent = site.side.nodes[0].boot
        known = [any(m.boot == agent for m in found[1].circuits.members) for found in run.world.edges if found]
        assert known.count(True) == IN_ALL
        run.finish()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_those_in_use_die_one_by_one(how: str) -> None:
    """Until one is left of those that the connectors are attached to."""
    with Run(Script(seed=22, edges=EDGES, steps=[])) as run:
        site = Site(run)
        first = site.opens()
        for _ in range(ATTACHED - 1):
            site.stands_by()
            dies = site.ways()[0]
            run.do(["edge", site.listed.index(dies), how])
            site.goes_on(first)
            run.do(["run", FRESH])
            site.opens()
        alone = site.ways()[0]
        assert alone in site.there and run.until(lambda: len(site.attached & set(site.there)) == ATTACHED, GOES_ON)
        run.finish()
        site.stands_by()
        site.leaves_the_rest()
        assert len(site.attached) == IN_ALL
        site.goes_on(first)


@pytest.mark.parametrize("dead", [IN_ALL - 1, IN_ALL])
def test_edges_that_an_idle_device_is_attached_to_die_together(dead: int) -> None:
    """A flow that opens finds another one: at once where one is left, else when it is tried again."""
    with Run(Script(seed=23, edges=EDGES, steps=[])) as run:
        site = Site(run)
        for edge in in_order("agent", site.attached)[:dead]:
            run.do(["edge", site.listed.index(edge), "kill"])
        began = run.world.network.now
        if dead < IN_ALL:
            site.opens()
            assert run.world.network.now - began < 2.0
        else:
            assert run.until(lambda: opens_one(run), 20.0)
        run.finish()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_the_tunnels_edges_are_all_away_for_minutes(how: str) -> None:
    """The others know nothing of its connectors: flows live, as where no edge answers at all."""
    with Run(Script(seed=25, edges=EDGES, steps=[])) as run:
        site = Site(run)
        first, dead = site.opens(), [run.world.listed.edges.index(edge) for edge in site.there]
        site.stands_by()
        for edge in dead:
            run.do(["edge", edge, how])
        run.do(["run", 5 * HOLD])
        for edge in dead:
            run.do(["edge", edge, "start" if how == "kill" else "thaw"])
        assert run.world.apps[first].saw is None
        run.do(["run", SETTLED])
        site.goes_on(first)
        run.finish()


def test_flows_of_an_edge_that_is_left_move_without_a_break() -> None:
    """It leads, and is given up, as when others are nearer to all tunnels of the device."""
    with Run(Script(seed=24, edges=EDGES, steps=[])) as run:
        assert run.world.agent is not None
        site, process = Site(run), run.world.agent[0]
        first = site.opens()
        site.stands_by()
        site.leaves_the_rest()
        gone, stays = site.ways()[:2]
        attachments = site.side.attachments
        process.call_soon(attachments._nodes.follow, attachments._of(site.attached - {gone}))
        run.do(["run", 0.1])
        assert site.ways()[0] == stays
        site.goes_on(first)
        run.finish()


def opens_one(run: Run) -> bool:
    """Whether the flow that was asked for last has opened; where it was refused, another one is asked for."""
    app = run.world.apps[-1] if run.world.apps else None
    if app is None or app.refusal is not None:
        run.world.open("tcp")
    return app is not None and app.flow is not None and app.flow.opened
