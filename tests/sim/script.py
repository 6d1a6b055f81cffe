"""A course of events in the whole world, as data: replayable, shrinkable, one line of JSON.

    {"seed": 7, "engine": "native", "steps": [["open", "tcp"], ["send", 0, "up", 50000], ["edge", 0, "kill"], …]}

Numbers of flows, edges and nodes are taken modulo how many there are, and a step that makes no sense now (an edge that
is dead can't be killed) does nothing: so every list of steps is a script. At the end everything is mended, and has to
work again (`Run.finish`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.sim.network import Host
from tests.sim.origins import App, TcpOrigin
from tests.sim.process import Process
from tests.sim.reference import Reference
from tests.sim.whole_world import Whole, simulated
from warren.fabric.engines import EngineName

MENDED = 60.0
"""Seconds within which every living flow makes progress, and every node is bound again, once everything works: a node
pauses for 15 s at most between attempts, and one that began just before may take 10 s to fail."""
ENDED = 100.0
"""Seconds within which flows that can't live are over: the hold time, and what it takes to begin it."""
OPENS = 25.0
"""Seconds within which a new flow opens: an idle connector whose NAT forgot is found after 20."""
LAST = 20_000
"""Bytes each way over every living flow in the end."""
STEP = 5.0
"""Seconds of a run between two looks."""
SPIN = 200_000
"""Events at one moment: more is a loop that never ends."""
AGENT = -1
Step = list[Any]


@dataclass
class Script:
    """Everything that a run is made from."""

    seed: int = 0
    engine: EngineName = "auto"
    edges: int = 2
    connectors: int = 2
    steps: list[Step] = field(default_factory=list)
    about: str = ""

    def line(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if value != ""})


class Run:
    """A script under way. Use it as a context."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.world = Whole(script.seed, script.edges, script.connectors, script.engine)
        self.reference = Reference(self.world)
        self.mended_in = 0.0
        """Seconds that it took in the end."""
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        self._stack.enter_context(simulated(self.world, self.script.seed))
        self.world.start()
        return self

    def __exit__(self, *words: object) -> None:
        self._stack.close()

    # ---- steps ----

    def do(self, step: Step) -> None:
        """One step, and a look. Raises AssertionError with the script."""
        getattr(self, f"_do_{step[0]}")(*step[1:])
        self._look()

    def _look(self) -> None:
        wrong = self.reference.wrong()
        if wrong:
            self.fail(wrong)

    def fail(self, what: str) -> None:
        raise AssertionError(f"{what}\nreplay: python -m tests.sim.replay '{self.script.line()}'")

    def _do_run(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Runs on until `condition` holds; the reference follows."""
        net, end = self.world.network, self.world.network.now + limit
        while not condition():
            if net.now >= end:
                return False
            before = net.now
            spun = _Spin(net)
            net.run_until(lambda spun=spun: spun() or condition(), min(STEP, end - net.now))  # type: ignore[misc]
            if spun.count > SPIN:
                self.fail("a loop that never ends")
            self.reference.passes(net.now - before)
            self._look()
        return True

    # ---- flows ----

    def _app(self, number: int) -> App | None:
        return self.world.apps[number % len(self.world.apps)] if self.world.apps else None

    def _do_open(self, protocol: str) -> None:
        if len(self.world.apps) < 60:
            self.world.open(protocol)

    def _do_send(self, number: int, direction: str, size: int) -> None:
        app = self._app(number)
        if app is None or app.protocol != "tcp":
            return
        if direction == "up" and app.ending is None:
            app.process.call_soon(app.send, size)
        elif direction == "down" and isinstance(app.origin, TcpOrigin) and not app.origin.ended:
            app.down.offered += size
            app.origin.say()

    def _do_datagrams(self, number: int, count: int, size: int) -> None:
        app = self._app(number)
        for _ in range(count if app is not None and app.protocol == "udp" else 0):
            app.process.call_soon(app.send_datagram, size)  # type: ignore[union-attr]

    def _do_end(self, number: int, side: str, how: str) -> None:
        app = self._app(number)
        if app is None:
            return
        if side == "app":
            app.process.call_soon(app.end, how if app.protocol == "tcp" else "reset")
        elif isinstance(app.origin, TcpOrigin):
            app.origin.ended = True
            app.origin.was_reset |= how == "reset" and app.origin.saw is None
            app.origin.say()

    def _do_pause(self, number: int, side: str, paused: bool) -> None:
        app = self._app(number)
        if app is not None and side == "app":
            app.process.call_soon(app.pause, paused)
        elif app is not None and isinstance(app.origin, TcpOrigin):
            app.origin.pause(paused)

    # ---- processes ----

    def _do_edge(self, index: int, what: str) -> None:
        index %= self.script.edges
        self._signal(self.world.edges[index], what, index, self.world.start_edge, self.world.kill_edge)

    def _do_connector(self, index: int, what: str) -> None:
        index %= self.script.connectors
        self._signal(self.world.connectors[index], what, index, self.world.start_connector, self.world.kill_connector)

    def _do_agent(self, what: str) -> None:
        world = self.world
        self._signal(world.agent, what, 0, lambda _: world.start_agent(), lambda _: world.kill_agent())

    def _signal(
        self,
        found: tuple[Process, Any] | None,
        what: str,
        index: int,
        start: Callable[[int], None],
        kill: Callable[[int], None],
    ) -> None:
        match what:
            case "start" if found is None:
                start(index)
            case "kill" if found is not None:
                kill(index)
            case "freeze" if found is not None and not found[0].frozen:
                found[0].freeze()
            case "thaw" if found is not None and found[0].frozen:
                found[0].thaw()

    # ---- network ----

    def _host(self, node: int) -> Host:
        """Connectors', then the agent's."""
        nodes = self.world.nodes()
        return nodes[node % len(nodes)]

    def _do_rebind(self, node: int) -> None:
        self.world.network.rebind(self._host(node))

    def _do_roam(self, node: int) -> None:
        self.world.roam(self._host(node))

    def _do_cut(self, node: int, edge: int, way: str) -> None:
        host, there = self._host(node), self.world.edge_hosts[edge % self.script.edges]
        if way != "from":
            self.world.network.cut(host, there)
        if way != "to":
            self.world.network.cut(there, host)

    def _do_blackout(self, node: int) -> None:
        self._host(node).blackout()

    def _do_link(self, node: int, loss: float, delay: float, mtu: int) -> None:
        host = self._host(node)
        for link in (host.up, host.down):
            link.loss, link.delay, link.mtu = loss, delay, mtu

    def _do_heal(self) -> None:
        net = self.world.network
        net.heal()
        for host in [*self.world.nodes(), *self.world.edge_hosts]:
            host.restore()
            for link in (host.up, host.down):
                link.loss, link.delay, link.mtu = 0.0, 0.005, 1500

    def _do_route(self, allowed: bool) -> None:
        if allowed != self.world.truth.allowed:
            self.world.change(allowed)

    # ---- the end ----

    def finish(self) -> None:
        """Everything is mended: then every flow that lives carries bytes both ways, and new ones open."""
        self._mend()
        self.until(lambda: False, 0.5)
        living = [app for app in self.world.apps if self.reference.lives(app)]
        for app in living:
            self._last_words(app)
        began = self.world.network.now
        if not self.until(lambda: self.world.connected() and all(map(self._delivered, living)), MENDED):
            late = [app.number for app in living if not self._delivered(app)]
            self.fail(f"after {MENDED} s flows {late} have not made progress; connected: {self.world.connected()}")
        self.mended_in = self.world.network.now - began
        self._opens_anew()
        rest = [app for app in self.world.apps if app.process.alive and app not in living]
        if not self.until(lambda: all(map(self._settled, rest)), ENDED):
            self.fail(f"after {ENDED} s flows {[app.number for app in rest if not self._settled(app)]} hang")

    def _mend(self) -> None:
        self._do_heal()
        for index in range(self.script.edges):
            self._do_edge(index, "start")
            self._do_edge(index, "thaw")
        for index in range(self.script.connectors):
            self._do_connector(index, "start")
            self._do_connector(index, "thaw")
        self._do_agent("start")
        self._do_agent("thaw")
        self._do_route(True)
        for app in self.world.apps:
            self._do_pause(app.number, "app", False)
            self._do_pause(app.number, "origin", False)

    def _last_words(self, app: App) -> None:
        if app.protocol == "udp":
            app.answers, app.fresh = 0, len(app.sent)
            self._repeat_datagrams(app)
            return
        self._do_send(app.number, "up", LAST)
        self._do_send(app.number, "down", LAST)

    def _repeat_datagrams(self, app: App) -> None:
        """One may be lost while a way is found."""
        if not app.answers and self.reference.lives(app):
            app.process.call_soon(app.send_datagram, 3000)
            self.world.network.after(1.0, self._repeat_datagrams, app)

    def _delivered(self, app: App) -> bool:
        if app.protocol == "udp":
            return app.answers > 0
        origin = app.origin
        assert isinstance(origin, TcpOrigin)
        whole = app.up.got == app.up.offered and app.down.got == app.down.offered
        ends = (app.ending != "end" or origin.saw == "end") and (not origin.ended or app.saw == "end")
        return whole and ends

    def _settled(self, app: App) -> bool:
        """It was refused, or is over on the app's side; or it may do what it likes."""
        free = app in self.reference.freed or self.reference.rests(app)
        return app.over or self.reference.lives(app) or (free and app.flow is not None)

    def _opens_anew(self) -> None:
        fresh = [self.world.open("tcp"), self.world.open("udp")]
        apps = [app for app in fresh if app is not None]
        for app in apps:
            if not self.until(lambda app=app: app.flow is not None and app.flow.opened, OPENS):  # type: ignore[misc]
                self.fail(f"a new {app.protocol} flow does not open: {app.refusal}")
            self._last_words(app)
        if not self.until(lambda: all(map(self._delivered, apps)), OPENS):
            self.fail("a new flow does not carry bytes")


class _Spin:
    """Counts events at one moment."""

    def __init__(self, network: Any) -> None:
        self.network, self.at, self.count = network, network.now, 0

    def __call__(self) -> bool:
        if self.network.now != self.at:
            self.at, self.count = self.network.now, 0
        self.count += 1
        return self.count > SPIN


def play(script: Script) -> Run:
    """A whole script. Raises AssertionError."""
    with Run(script) as run:
        for step in script.steps:
            run.do(step)
        run.finish()
    return run
