"""The only edge dies and is started again: how soon after that flows go on, and new ones open."""

from __future__ import annotations

from statistics import median

import pytest

from tests.sim.origins import App
from tests.sim.script import Run, Script
from warren.fabric.engines import EngineName

SOON = 0.8
"""Seconds; in fifty runs it took 0.4 to 0.6: three handshakes, a Bind and an offer of 20 ms a round trip and more."""

LOOKED = 4.0
"""Seconds: two and a half until a connector looks, a beat more, and what SOON is made of."""
LONGEST = 20.0
"""Seconds for which a new edge lets a flow wait."""

PAUSES = 5.0
"""Seconds; a connector that found no edge for minutes pauses for up to fifteen."""


def after(seed: int, away: float) -> float:
    """Seconds from the edge's start until every TCP flow has gone on both ways."""
    with Run(Script(seed, "auto", 1, 2, [])) as run:
        for protocol in ("tcp", "tcp", "udp"):
            run.world.open(protocol)
        run.until(lambda: False, 2.0)
        flows = [app for app in run.world.apps if app.protocol == "tcp"]
        for app in flows:
            run.do(["send", app.number, "up", 4_000_000])
            run.do(["send", app.number, "down", 4_000_000])
        run.until(lambda: False, 1.5)
        run.do(["edge", 0, "kill"])
        run.until(lambda: False, away)
        run.do(["edge", 0, "start"])
        started, before = run.world.network.now, [got(app) for app in flows]
        assert all(up < 4_000_000 and down < 4_000_000 for up, down in before)
        assert run.until(lambda: all(moved(app, was) for app, was in zip(flows, before, strict=True)), 60.0)
        return float(run.world.network.now - started)


def opens_after(seed: int, away: float, engine: EngineName) -> float:
    """Seconds that a new agent's first flow takes, asked for at the edge's start; its connector carried none before."""
    with Run(Script(seed, engine, 1, 1, [])) as run:
        run.until(lambda: False, 3.0)
        run.do(["agent", "kill"])
        run.do(["edge", 0, "kill"])
        run.until(lambda: False, away)
        run.do(["edge", 0, "start"])
        run.do(["agent", "start"])
        app, asked = run.world.open("tcp"), run.world.network.now
        assert app is not None
        assert run.until(lambda: app.refusal is not None or (app.flow is not None and app.flow.opened), LONGEST)
        assert app.refusal is None
        return float(run.world.network.now - asked)


def opens_when_asked(seed: int, away: float, later: float, engine: EngineName) -> float:
    """Seconds that the first flow takes of an agent that has looked for the edge all the while, asked for `later` s
    after the edge's start; the connector is started then, too."""
    with Run(Script(seed, engine, 1, 1, [])) as run:
        run.until(lambda: False, 3.0)
        run.do(["edge", 0, "kill"])
        run.do(["connector", 0, "kill"])
        run.until(lambda: False, away)
        run.do(["edge", 0, "start"])
        run.do(["connector", 0, "start"])
        run.until(lambda: False, later)
        app, asked = run.world.open("tcp"), run.world.network.now
        assert app is not None
        assert run.until(lambda: app.refusal is not None or (app.flow is not None and app.flow.opened), LONGEST)
        assert app.refusal is None, app.refusal
        return float(run.world.network.now - asked)


def got(app: App) -> tuple[int, int]:
    """Bytes that have arrived, up and down."""
    return app.up.got, app.down.got


def moved(app: App, before: tuple[int, int]) -> bool:
    """Whether both ways have gone on."""
    return app.up.got > before[0] and app.down.got > before[1]


@pytest.mark.parametrize("engine", ["native", "aioquic"])
@pytest.mark.parametrize("away", [0.0, 1.0, 6.0])
def test_a_new_flow_waits_for_a_connector_that_rests(away: float, engine: EngineName) -> None:
    """Its beats are all that it sends: it looks after the edge when they are not answered."""
    assert opens_after(1, away, engine) < LOOKED


@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_a_new_flow_waits_for_a_connector_that_pauses(engine: EngineName) -> None:
    """After minutes it tries rarely: whenever the edge is back, the flow opens, and now and then it waited for that."""
    waits = [opens_after(seed, 120.0 + 3.0 * step, engine) for seed in range(3) for step in range(6)]
    assert max(waits) > PAUSES, waits


@pytest.mark.parametrize("engine", ["native", "aioquic"])
def test_an_agent_that_pauses_ends_its_pause_for_a_new_flow(engine: EngineName) -> None:
    """Whose app asks does not wait until the agent would have tried again."""
    for seed in range(3):
        for away in (120.0, 125.0, 130.0, 135.0):
            assert opens_when_asked(seed, away, 1.0, engine) < SOON


@pytest.mark.parametrize("away", [3.0, 6.0, 25.0])
def test_flows_go_on_soon_after_the_only_edge_is_back(away: float) -> None:
    assert median(after(seed, away) for seed in range(3)) < SOON
