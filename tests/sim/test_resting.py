"""Flows of datagrams that rest while somebody is not there. Each is told by its socket at the connector, which is the
source port that the origin sees."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.script import AGENT, Run, Script, Step
from warren.agent.capture.headers import PROTOCOL_ICMP, PROTOCOL_UDP, FlowKey
from warren.agent.decisions import Decisions
from warren.agent.udp import IDLE, SWEEP, UdpJourney
from warren.fabric.aio.peer_path import SILENT

TEN_MINUTES = 600.0
ANSWERED_WITHIN = 30.0
HERE, THERE = b"\xc0\0\2\1", b"\x0a\0\0\1"


class Answers:
    """A capture that counts what came, and knows no names."""

    def __init__(self) -> None:
        self.came = {"udp": 0, "icmp": 0}

    def send_datagram(self, key: FlowKey, payload: bytes) -> None:
        self.came["udp"] += 1

    def send_echo_reply(self, key: FlowKey, sequence: int, data: bytes) -> None:
        self.came["icmp"] += 1

    def unreachable(self, *words: Any) -> None:
        raise AssertionError(words)

    def name_of(self, address: bytes) -> None:
        return None

    def is_synthetic(self, address: bytes) -> bool:
        return False


class Laptop:
    """One UDP flow and a ping, as the agent has them, in the agent's process."""

    def __init__(self, run: Run) -> None:
        assert run.world.agent is not None
        self._run, self._answers = run, Answers()
        self._process, self._side = run.world.agent
        self._process.call_soon(self._start)
        run.do(["run", 0.0])

    def _start(self) -> None:
        capture: Any = self._answers
        self.journey = UdpJourney(capture, Decisions(self._side.switchboard), self._side.peers, capture)

    def _say(self) -> None:
        self.journey.datagram(FlowKey(PROTOCOL_UDP, HERE, 4000, THERE, 7), b"are you there?")
        self.journey.echo(FlowKey(PROTOCOL_ICMP, HERE, 77, THERE, 0), 1, 64, b"and you?")

    def is_answered(self) -> None:
        """Both say something, and again every second, until both have an answer; the run fails without."""
        before = dict(self._answers.came)

        def answered() -> bool:
            return all(count > before[kind] for kind, count in self._answers.came.items())

        for _ in range(int(ANSWERED_WITHIN)):
            self._process.call_soon(self._say)
            if self._run.until(answered, 1.0):
                return
        self._run.fail(f"no answer: {before} before, {self._answers.came} now")

    @property
    def sockets(self) -> int:
        """How many sockets it has used at the connector."""
        return len(self._run.world.origins)


QUIET: list[Step] = [["open", "tcp"], ["run", 1.0]]
BYTES: list[Step] = [["send", 0, "up", 300_000], ["send", 0, "down", 300_000]]


@pytest.mark.parametrize(
    ("edges", "begins", "ends"),
    [
        (2, [["agent", "freeze"]], [["agent", "thaw"]]),
        (1, [["connector", 0, "freeze"]], [["connector", 0, "thaw"]]),
        (2, [["blackout", AGENT]], [["heal"]]),
        (1, [["blackout", 0]], [["heal"]]),
    ],
    ids=["agent stands still", "connector stands still", "agent in the dark", "connector in the dark"],
)
def test_ten_minutes_of_silence(edges: int, begins: list[Step], ends: list[Step]) -> None:
    """Hold time and lease are longer, as somebody has them who wants this of connectors, too."""
    run = Run(Script(seed=11, edges=edges, connectors=1, steps=[]))
    run.world.hold = run.world.lease = 2 * TEN_MINUTES
    with run:
        laptop = Laptop(run)
        for step in QUIET:
            run.do(step)
        laptop.is_answered()
        assert laptop.sockets == 2
        for step in [["run", 20.0], *BYTES, *begins, ["run", TEN_MINUTES], *ends]:
            run.do(step)
        laptop.is_answered()
        assert laptop.sockets == 2
        tcp = run.world.apps[0]
        assert run.until(lambda: tcp.up.got == tcp.down.got == 300_000, ANSWERED_WITHIN) and tcp.saw is None
        run.finish()


def test_what_rests_while_everybody_is_awake_ends() -> None:
    with Run(Script(seed=12, edges=1, connectors=1, steps=[])) as run:
        laptop = Laptop(run)
        laptop.is_answered()
        run.do(["run", IDLE - 5.0])
        assert [flow.protocol for flow in laptop.journey.flows.values()] == ["udp"]
        run.do(["run", 2 * SWEEP + 5.0])
        assert not laptop.journey.flows and all(origin.fileno() < 0 for origin in run.world.origins)
        laptop.is_answered()
        assert laptop.sockets == 4


def test_a_connector_ends_what_its_agent_does_not_end() -> None:
    """An agent whose own clock of idle times does not run: what it has forgotten."""
    with Run(Script(seed=13, edges=1, connectors=1, steps=[])) as run:
        laptop = Laptop(run)
        laptop.is_answered()
        laptop.journey._sweep.cancel()
        run.do(["run", 170.0])
        assert [origin.fileno() < 0 for origin in run.world.origins].count(True) == 1
        run.do(["run", 30.0])
        assert all(origin.fileno() < 0 for origin in run.world.origins)


def test_flows_of_an_agent_that_never_comes_back_end_together() -> None:
    with Run(Script(seed=14, edges=1, connectors=1, steps=[])) as run:
        laptop = Laptop(run)
        laptop.is_answered()
        run.do(["agent", "kill"])
        run.do(["run", 900.0 - SILENT])
        assert all(origin.fileno() >= 0 for origin in run.world.origins)
        run.do(["run", 2 * SILENT])
        assert all(origin.fileno() < 0 for origin in run.world.origins)
