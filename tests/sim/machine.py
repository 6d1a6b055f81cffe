"""The stateful model: Hypothesis does to the whole world whatever may happen to it, in any order (script.py)."""

from __future__ import annotations

from typing import ClassVar, Literal

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.sim.script import Run, Script, Step
from warren.fabric.engines import EngineName

FLOWS = st.integers(0, 11)
EDGES = st.integers(0, 1)
CONNECTORS = st.integers(0, 1)
NODES = st.integers(0, 2)
"""Two connectors, the agent."""
SIZES = st.sampled_from((10, 2_000, 50_000, 300_000))
WAITS = st.sampled_from((0.05, 0.3, 1.0, 3.0, 8.0))
LONG_WAITS = st.sampled_from((1.0, 8.0, 20.0, 60.0, 200.0))
SIGNALS = st.sampled_from(("kill", "start", "freeze", "thaw"))


class Machine(RuleBasedStateMachine):
    """Its rules are the steps of a script."""

    engine: ClassVar[EngineName] = "auto"
    played: ClassVar[int] = 0
    """Steps of all examples of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.run: Run | None = None
        self.failed = False

    @initialize(number=st.integers(0, 999))
    def begin(self, number: int) -> None:
        self.run = Run(Script(seed=number, engine=self.engine)).__enter__()
        for step in (["open", "tcp"], ["open", "udp"], ["run", 1.0]):
            self.do(step)

    def do(self, step: Step) -> None:
        assert self.run is not None
        Machine.played += 1
        self.run.script.steps.append(step)
        self.failed = True
        self.run.do(step)
        self.failed = False

    def teardown(self) -> None:
        if self.run is None:
            return
        try:
            if not self.failed:
                self.run.finish()
        finally:
            self.run.__exit__()

    # ---- flows ----

    @rule(protocol=st.sampled_from(("tcp", "tcp", "udp")))
    def open(self, protocol: str) -> None:
        self.do(["open", protocol])

    @rule(flow=FLOWS, direction=st.sampled_from(("up", "down")), size=SIZES)
    def send(self, flow: int, direction: str, size: int) -> None:
        self.do(["send", flow, direction, size])

    @rule(flow=FLOWS, count=st.sampled_from((1, 5)), size=st.sampled_from((20, 1_200, 4_000)))
    def datagrams(self, flow: int, count: int, size: int) -> None:
        self.do(["datagrams", flow, count, size])

    @rule(flow=FLOWS, side=st.sampled_from(("app", "origin")), how=st.sampled_from(("end", "reset")))
    def end(self, flow: int, side: str, how: str) -> None:
        self.do(["end", flow, side, how])

    @rule(flow=FLOWS, side=st.sampled_from(("app", "origin")), paused=st.booleans())
    def pause(self, flow: int, side: str, paused: bool) -> None:
        self.do(["pause", flow, side, paused])

    # ---- processes ----

    @rule(index=EDGES, what=SIGNALS)
    def edge(self, index: int, what: str) -> None:
        self.do(["edge", index, what])

    @rule(index=CONNECTORS, what=SIGNALS)
    def connector(self, index: int, what: str) -> None:
        self.do(["connector", index, what])

    @rule(what=SIGNALS)
    def agent(self, what: str) -> None:
        self.do(["agent", what])

    # ---- network ----

    @rule(node=NODES)
    def rebind(self, node: int) -> None:
        self.do(["rebind", node])

    @rule(node=NODES)
    def roam(self, node: int) -> None:
        self.do(["roam", node])

    @rule(node=NODES, index=EDGES, way=st.sampled_from(("both", "to", "from")))
    def cut(self, node: int, index: int, way: Literal["both", "to", "from"]) -> None:
        self.do(["cut", node, index, way])

    @rule(node=NODES)
    def blackout(self, node: int) -> None:
        self.do(["blackout", node])

    @rule(
        node=NODES,
        loss=st.sampled_from((0.0, 0.02, 0.3)),
        delay=st.sampled_from((0.005, 0.05, 0.35)),
        mtu=st.sampled_from((1500, 1400, 1280)),
    )
    def link(self, node: int, loss: float, delay: float, mtu: int) -> None:
        self.do(["link", node, loss, delay, mtu])

    @rule()
    def heal(self) -> None:
        self.do(["heal"])

    @rule(allowed=st.booleans())
    def route(self, allowed: bool) -> None:
        self.do(["route", allowed])

    # ---- time ----

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        self.do(["run", seconds])

    @rule(seconds=LONG_WAITS)
    def wait_long(self, seconds: float) -> None:
        self.do(["run", seconds])


def explore(number: int | None, examples: int, engine: EngineName = "auto", steps: int = 40) -> None:
    """So many examples. `number`: the seed; None: the same ones each time. Raises AssertionError with the script."""
    kind = type("Model", (Machine,), {"engine": engine})
    if number is not None:
        kind = seed(number)(kind)
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=number is None,
        database=None,
        deadline=None,
        print_blob=False,
        phases=(Phase.generate,),  # `replay --shrink` is quicker
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(kind, settings=chosen)
