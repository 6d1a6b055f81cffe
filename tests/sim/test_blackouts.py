"""The first byte after a blackout, in the whole world (more lengths and traffics: python -m tests.sim.blackouts)."""

from __future__ import annotations

import pytest

from tests.sim.blackouts import SOON, Blackouts
from tests.sim.script import Run, Script
from warren.fabric.core.paths import TURN
from warren.fabric.engines import EngineName

LENGTHS = (8.3, 10.1)
GAP = 3.0


def after(
    traffic: str,
    lengths: tuple[float, ...],
    script: Script,
    dark: str = "agent",
    back: int | None = None,
    soon: float = SOON,
) -> Run:
    """One blackout after another, after each of which every flow goes on soon. What the world was."""
    with Run(script) as run:
        blackouts = Blackouts(run, traffic, dark, back)
        found = [blackouts.measure(seconds, GAP) for seconds in lengths]
    assert max(max(took.values()) for took in found) < soon, found
    return run


@pytest.mark.parametrize("edges", [1, 2])
@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_every_flow_goes_on_at_once(edges: int, engine: EngineName) -> None:
    after("both", LENGTHS, Script(seed=3, engine=engine, edges=edges))


@pytest.mark.parametrize("traffic", ["down", "silent"])
def test_also_when_one_end_alone_speaks_or_nobody(traffic: str) -> None:
    after(traffic, (11.2, 60.0), Script(seed=3, edges=1))


def test_the_standbys_edge_alone_is_there_afterwards() -> None:
    """It may just have had its turn."""
    after("down", LENGTHS, Script(seed=4), back=1, soon=SOON + TURN)


def test_no_circuit_shrinks_in_the_dark() -> None:
    """What is asked in a silence asks for the size that was, too: engines throw away what is larger. The connectors
    are in the dark here."""
    run = after("down", LENGTHS, Script(seed=5), dark="connector")
    programs = [found[1] for found in [run.world.agent, *run.world.connectors] if found is not None]
    slots = [one.slot for program in programs for node in program.nodes for one in node.sockets]
    assert {slot.size for slot in slots if slot is not None} == {1452}
