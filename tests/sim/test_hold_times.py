"""Hold times at full length, in virtual minutes: what flows live through, and the clear reset past it."""

from __future__ import annotations

import pytest

from tests.sim.origins import App
from tests.sim.script import AGENT, Run, Script, Step

QUIET: list[Step] = [["open", "tcp"], ["open", "tcp"], ["open", "udp"], ["run", 1.0]]
BUSY: list[Step] = [["send", 0, "up", 300_000], ["send", 1, "down", 300_000], ["datagrams", 2, 3, 1200]]


def lives(seed: int, steps: list[Step]) -> None:
    """Plays it with flows in mid-transfer; every flow has to be alive in the end, and to carry bytes."""
    with Run(Script(seed=seed, steps=[*QUIET, *BUSY, *steps])) as run:
        for step in run.script.steps:
            run.do(step)
        assert all(map(run.reference.lives, run.world.apps))
        run.finish()


@pytest.mark.parametrize("seconds", [60.0, 300.0])
def test_a_blackout_of_the_laptop(seconds: float) -> None:
    lives(1, [["blackout", AGENT], ["run", seconds], ["heal"]])


def test_ten_seconds_of_blackout_cost_little_more() -> None:
    with Run(Script(seed=2, steps=[])) as run:
        for step in [*QUIET, ["blackout", AGENT], ["send", 0, "up", 20_000], ["run", 10.0], ["heal"]]:
            run.do(step)
        back = run.world.network.now
        assert run.until(lambda: run.world.apps[0].up.got > 0, 5.0)
        assert run.world.network.now - back < 1.2


def test_the_connectors_network_is_away_for_most_of_the_hold_time() -> None:
    lives(3, [["blackout", 0], ["blackout", 1], ["run", 40.0], ["heal"]])


def test_thirty_percent_loss_for_a_minute() -> None:
    lossy = ["link", AGENT, 0.3, 0.01, 1500]
    lives(4, [lossy, ["run", 30.0], *BUSY, ["run", 30.0], ["heal"]])


def test_a_round_trip_of_750_ms() -> None:
    lives(5, [["link", AGENT, 0.0, 0.18, 1500], ["run", 30.0], *BUSY, ["run", 60.0]])


@pytest.mark.parametrize("edges", [[0], [1], [0, 1]], ids=str)
def test_edges_are_dead_for_half_a_minute(edges: list[int]) -> None:
    killed = [["edge", edge, "kill"] for edge in edges]
    lives(6, [*killed, ["run", 30.0], *(["edge", edge, "start"] for edge in edges)])


def test_the_laptop_sleeps_for_ten_minutes() -> None:
    lives(7, [["agent", "freeze"], ["run", 480.0], ["agent", "thaw"]])


@pytest.mark.parametrize(("host", "edges"), [("agent", 2), ("edge", 1)])
def test_all_flows_go_on_soon_after_a_host_stood_still(host: str, edges: int) -> None:
    """For a minute and a half, as a laptop that sleeps, or as a paused machine: what waited in its sockets meanwhile
    is no round trip to anybody, and nobody waits that long for the next one."""
    with Run(Script(seed=3, edges=edges, steps=[])) as run:
        for step in QUIET:
            run.do(step)
        tcp, _, udp = run.world.apps
        talking = Talking(run, tcp, udp)
        run.do(["run", 5.0])
        run.do([*([host] if host == "agent" else [host, 0]), "freeze"])
        run.do(["run", 91.0])
        run.do([*([host] if host == "agent" else [host, 0]), "thaw"])
        before, udp.answers, udp.fresh = tcp.down.got, 0, len(udp.sent) + talking.waiting
        assert run.until(lambda: tcp.down.got > before + 100_000 and udp.answers > 0, 6.0)
        talking.over = True
        run.finish()


def test_a_path_that_takes_small_packets_only() -> None:
    lives(8, [["link", AGENT, 0.0, 0.01, 1280], ["run", 10.0], *BUSY, ["run", 20.0]])


def test_the_nat_forgets_every_ten_seconds() -> None:
    lives(9, [["rebind", AGENT], ["run", 10.0], *BUSY] * 6)


MOST_WAIT = 2000
"""Datagrams that the kernel keeps for an agent that does not read."""


class Talking:
    """Datagrams, and bytes both ways, all the while."""

    def __init__(self, run: Run, tcp: App, udp: App) -> None:
        self.over = False
        self.waiting = 0
        """Datagrams in the kernel, for an agent that does not read."""
        self._run, self._tcp, self._udp = run, tcp, udp
        self._again()

    def _again(self) -> None:
        if self.over:
            return
        process, net = self._udp.process, self._run.world.network
        self.waiting = min(self.waiting + 1, MOST_WAIT) if process.frozen else 0
        if self.waiting < MOST_WAIT:
            process.call_soon(self._udp.send_datagram, 200)
        if not process.frozen:
            self._run._do_send(self._tcp.number, "up", 1000)
            self._run._do_send(self._tcp.number, "down", 1000)
        net.after(0.01, self._again)


def _ends(steps: list[Step], limit: float) -> tuple[App, float]:
    with Run(Script(seed=10, steps=[])) as run:
        for step in [["open", "tcp"], ["run", 1.0], *steps]:
            run.do(step)
        app, began = run.world.apps[0], run.world.network.now
        assert app.saw is None and app.flow is not None
        run.until(lambda: app.saw is not None, limit)
        return app, run.world.network.now - began


def test_a_connector_process_that_ends_is_a_reset_at_once() -> None:
    app, waited = _ends([["connector", 0, "kill"], ["connector", 1, "kill"]], 10.0)
    assert app.saw == "reset" and waited < 1.0


def test_past_the_hold_time_a_vanished_connector_is_a_reset() -> None:
    app, waited = _ends([["blackout", 0], ["blackout", 1]], 120.0)
    assert app.saw == "reset" and 55.0 < waited < 75.0


def test_a_deleted_route_is_a_reset_within_a_second() -> None:
    app, waited = _ends([["route", False]], 10.0)
    assert app.saw == "reset" and waited < 1.0
