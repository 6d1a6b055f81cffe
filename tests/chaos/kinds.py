"""What goes wrong: each kind begins it, lets it last, and ends it; what it may cost stands in `MAY_LOSE`."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.chaos.world import ADDRESSES, CONNECTORS, LINE, World
from tests.lab.two_edges import EDGES
from warren.lab import Impairment, breaking, wait_until

DRAINED_WITHIN = 45.0
Loss = Literal["none", "of the connector"]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that things last. `recovery`: the least from the end of one thing to the next."""

    edge_away: tuple[float, float] = (0.5, 8.0)
    frozen: float = 8.0
    edge_cut: float = 8.0
    drained: float = 6.0
    rebinds: int = 3
    rebinds_every: float = 10.0
    cut: float = 10.0
    long_cut: float = 60.0
    bad: float = 15.0
    suspended: float = 90.0
    """Longer than an edge waits for an agent."""
    recovery: float = 6.0
    settled: float = 2.0


USUAL = Pace()
FULL = Pace(edge_away=(0.5, 28.0), frozen=60.0, edge_cut=60.0, bad=60.0)
QUICK = Pace((0.2, 0.2), 1.5, 1.0, 0.5, 2, 0.7, 2.0, 2.0, 2.0, 0.7, 0.2)

Act = Callable[[World, Pace, random.Random], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """`act` returns when it is over. `lost`: the flows that the failure table lets end. `long`: takes a minute or
    more. `alone`: one edge runs, the other has been stopped."""

    name: str
    title: str
    act: Act
    lost: Loss = "none"
    long: bool = False
    alone: bool = False

    @property
    def edges(self) -> tuple[str, ...]:
        """Those that run when it begins."""
        return EDGES[:1] if self.alone else EDGES


def edge_killed(world: World, pace: Pace, draw: random.Random) -> None:
    """Mostly the one that leads."""
    restart(world, edge_of(world, draw), draw.uniform(*pace.edge_away))


def edge_restarted(world: World, pace: Pace, draw: random.Random) -> None:
    restart(world, EDGES[0], draw.uniform(*pace.edge_away))


def restart(world: World, name: str, away: float) -> None:
    world.deployment.daemons[name].kill()
    time.sleep(away)
    world.deployment.run(name)


def edge_frozen(world: World, pace: Pace, draw: random.Random) -> None:
    freeze(world, edge_of(world, draw), pace.frozen)


def edge_cut(world: World, pace: Pace, draw: random.Random) -> None:
    """From everybody, the store too."""
    edge = world.lab[edge_of(world, draw)]
    world.deployment.cut_off(edge)
    try:
        time.sleep(pace.edge_cut)
    finally:
        world.deployment.rejoin(edge)


def edge_of(world: World, draw: random.Random) -> str:
    """The one that leads, three times of four."""
    leads = world.deployment.leading()
    return leads if draw.random() < 0.75 else next(name for name in EDGES if name != leads)


def connector_killed(world: World, pace: Pace, draw: random.Random) -> None:
    world.deployment.daemons[draw.choice(CONNECTORS)].kill()


def connector_frozen(world: World, pace: Pace, draw: random.Random) -> None:
    freeze(world, draw.choice(CONNECTORS), pace.frozen)


def connector_drained(world: World, pace: Pace, draw: random.Random) -> None:
    """SIGTERM: what is open goes on; when the apps have closed and opened again, its process ends."""
    process = world.deployment.daemons[draw.choice(CONNECTORS)]
    process.signal(signal.SIGTERM)
    time.sleep(pace.drained)
    world.reopen()
    process.wait(DRAINED_WITHIN)


def freeze(world: World, name: str, lasts: float) -> None:
    process = world.deployment.daemons[name]
    process.freeze()
    try:
        time.sleep(lasts)
    finally:
        process.thaw()


def address_changed(world: World, pace: Pace, draw: random.Random) -> None:
    laptop = world.lab["laptop"]
    before = str(breaking.address_of(laptop, "eth0"))
    breaking.readdress(laptop, ADDRESSES[before == ADDRESSES[0]])


def nat_rebound(world: World, pace: Pace, draw: random.Random) -> None:
    for number in range(pace.rebinds):
        if number:
            time.sleep(pace.rebinds_every)
        breaking.rebind(world.lab["home"])


def cut(world: World, pace: Pace, draw: random.Random) -> None:
    silence(world, pace.cut)


def long_cut(world: World, pace: Pace, draw: random.Random) -> None:
    silence(world, pace.long_cut)


def silence(world: World, lasts: float) -> None:
    world.lab.links.cut(LINE)
    try:
        time.sleep(lasts)
    finally:
        world.lab.links.mend(LINE)


def lossy(world: World, pace: Pace, draw: random.Random) -> None:
    impaired(world, Impairment(loss=0.3), pace.bad)


def far_away(world: World, pace: Pace, draw: random.Random) -> None:
    impaired(world, Impairment(delay=0.375), pace.bad)


def suspended(world: World, pace: Pace, draw: random.Random) -> None:
    freeze(world, "agent", pace.suspended)


def impaired(world: World, impairment: Impairment, lasts: float) -> None:
    world.lab.impair(LINE, impairment)
    try:
        time.sleep(lasts)
    finally:
        world.lab.links.clear(LINE)


def narrowed(world: World, pace: Pace, draw: random.Random) -> None:
    world.lab.links.narrow(LINE, 1280)
    try:
        time.sleep(pace.bad)
    finally:
        world.lab.links.mend(LINE)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("edge-killed", "one of two edges killed, then started", edge_killed),
        Kind("edge-frozen", "one of two edges frozen, then thawed", edge_frozen),
        Kind("edge-cut", "one of two edges cut off from everybody", edge_cut),
        Kind("edge-restarted", "the only edge killed, then started", edge_restarted, alone=True),
        Kind("connector-killed", "connector killed", connector_killed, lost="of the connector"),
        Kind("connector-frozen", "connector frozen, then thawed", connector_frozen),
        Kind("connector-drained", "connector drained", connector_drained),
        Kind("address", "another address of the laptop", address_changed),
        Kind("rebinding", "NAT rebinds again and again", nat_rebound),
        Kind("cut", "link cut for ten seconds", cut),
        Kind("long-cut", "link cut for a minute", long_cut, long=True),
        Kind("loss", "30 % of all packets lost", lossy),
        Kind("narrow", "path MTU 1280, ICMP filtered", narrowed),
        Kind("suspended", "laptop suspended, then awake", suspended, long=True),
        Kind("far", "round trip of 750 ms", far_away),
    )
}


def settle(world: World, kind: Kind, pace: Pace) -> None:
    """Before each event: everything runs and has gone on for a while."""
    world.make_whole(kind.edges)
    time.sleep(pace.settled)
    wait_until(lambda: world.deployment.status(), "the agent's status")
