"""How soon flows go on after a blackout of the laptop, in the whole world: one blackout after another, of many lengths.

    python -m tests.sim.blackouts --traffic busy,down --edges 2 --lengths 8 12 0.25 [--back 0] [--dark connector]

Peer connections are shared by flows, so what else talks matters: each traffic is a world of its own.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

from tests.sim.origins import App
from tests.sim.script import Run, Script
from warren.fabric.engines import EngineName

SOON = 0.5
GAP = 7.0
"""Seconds from one return to the next blackout."""
LATE = 20.0


class Talker:
    """What goes over one flow, from now on."""

    EVERY = 0.04

    def __init__(self, run: Run, app: App, how: str) -> None:
        self.run, self.app, self.how = run, app, how
        self.dark = False
        self.asked = 0
        self._tick()

    def _tick(self) -> None:
        net = self.run.world.network
        every = self.EVERY
        match self.how:
            case "up":
                self.run._do_send(self.app.number, "up", 1000)
            case "down":
                self.run._do_send(self.app.number, "down", 1000)
            case "bulk-up" if self.app.up.offered - self.app.up.got < 500_000:
                self.run._do_send(self.app.number, "up", 300_000)
            case "bulk-down" if self.app.down.offered - self.app.down.got < 500_000:
                self.run._do_send(self.app.number, "down", 300_000)
            case "echo":
                every = 0.01
                self._echo()
            case "udp":
                self.app.process.call_soon(self.app.send_datagram, 200)
            case "ping":
                every = 0.2
                self.app.process.call_soon(self.app.send_datagram, 60)
        net.after(every, self._tick)

    def _echo(self) -> None:
        """Ten times a second the app says something once the answer to what it said before is there."""
        app = self.app
        if app.up.got > app.down.offered:
            self.run._do_send(app.number, "down", app.up.got - app.down.offered)
        if app.down.got == app.up.offered and self.run.world.network.now >= self.asked:
            self.asked = self.run.world.network.now + 0.1
            self.run._do_send(app.number, "up", 100)

    def speak(self) -> None:
        """At the return: who was silent says something."""
        match self.how:
            case "silent-up":
                self.run._do_send(self.app.number, "up", 1000)
            case "silent-down":
                self.run._do_send(self.app.number, "down", 1000)

    @property
    def heard(self) -> int:
        match self.how:
            case "up" | "bulk-up" | "silent-up":
                return self.app.up.got
            case "udp" | "ping":
                return self.app.answers
        return self.app.down.got


TRAFFIC: dict[str, tuple[str, ...]] = {
    "up": ("up",),
    "down": ("down",),
    "echo": ("echo",),
    "silent-up": ("silent-up",),
    "silent-down": ("silent-down",),
    "bulk-up": ("bulk-up",),
    "bulk-down": ("bulk-down",),
    "ping": ("ping",),
    "udp": ("udp",),
    "both": ("up", "down", "echo", "udp"),
    "silent": ("silent-up", "silent-down"),
    "busy": ("up", "down", "echo", "bulk-up", "bulk-down", "udp", "ping"),
}


class Blackouts:
    """One world with one traffic. Use it as a context's body: `measure` once for each blackout."""

    def __init__(self, run: Run, traffic: str, dark: str = "agent", back: int | None = None) -> None:
        """`dark`: the agent, or the connectors. `back`: the only edge that is there at the return; None: all."""
        self.run, self.back = run, back
        self.hosts = [run.world.agent_host] if dark == "agent" else run.world.connector_hosts
        apps: list[App] = []
        for how in TRAFFIC[traffic]:
            app = run.world.open("udp" if how in ("udp", "ping") else "tcp")
            assert app is not None
            apps.append(app)
        assert run.until(lambda: all(app.flow is not None and app.flow.opened for app in apps), 5.0)
        self.talkers = [Talker(run, app, how) for app, how in zip(apps, TRAFFIC[traffic], strict=True)]
        for talker in self.talkers:
            if talker.how.startswith("silent"):
                run._do_send(talker.app.number, "up", 1000)
                run._do_send(talker.app.number, "down", 1000)

    def measure(self, seconds: float, gap: float = GAP) -> dict[str, float]:
        """A blackout of so many seconds; for each flow, the seconds from the return until it goes on."""
        world = self.run.world
        self.run.do(["run", gap])
        for host in self.hosts:
            host.blackout()
        self.run.do(["run", seconds])
        for edge, host in enumerate(world.edge_hosts):
            if self.back not in (None, edge):
                host.blackout()
        for host in self.hosts:
            host.restore()
        back = world.network.now
        before = {talker.how: talker.heard for talker in self.talkers}
        took: dict[str, float] = {}
        for talker in self.talkers:
            talker.speak()

        def all_went_on() -> bool:
            for talker in self.talkers:
                if talker.how not in took and talker.heard > before[talker.how]:
                    took[talker.how] = world.network.now - back
            return len(took) == len(self.talkers)

        self.run.until(all_went_on, LATE)
        for host in world.edge_hosts:
            host.restore()
        return {talker.how: took.get(talker.how, LATE) for talker in self.talkers}


def survey(
    traffic: str,
    lengths: Sequence[float],
    edges: int,
    engine: EngineName,
    seed: int,
    dark: str = "agent",
    back: int | None = None,
    tell: Callable[[float, dict[str, float]], None] = lambda seconds, took: None,
) -> dict[str, list[float]]:
    """All blackouts of one world. Returns flow → seconds."""
    found: dict[str, list[float]] = {}
    with Run(Script(seed=seed, engine=engine, edges=edges)) as run:
        blackouts = Blackouts(run, traffic, dark, back)
        for seconds in lengths:
            took = blackouts.measure(seconds)
            tell(seconds, took)
            for how, one in took.items():
                found.setdefault(how, []).append(one)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--traffic", default="all")
    parser.add_argument("--edges", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lengths", type=float, nargs=3, default=(8.0, 12.0, 0.25), metavar=("FROM", "TO", "STEP"))
    parser.add_argument("--dark", default="agent")
    parser.add_argument("--back", type=int, default=None)
    parser.add_argument("--verbose", action="store_true")
    asked = parser.parse_args()
    first, last, step = asked.lengths
    lengths = [first + step * n for n in range(int((last - first) / step) + 1)]

    def tell(seconds: float, took: dict[str, float]) -> None:
        if asked.verbose:
            print(f"  {seconds:6.2f}", " ".join(f"{how} {one:.3f}" for how, one in took.items()), flush=True)

    for traffic in TRAFFIC if asked.traffic == "all" else asked.traffic.split(","):
        found = survey(traffic, lengths, asked.edges, asked.engine, asked.seed, asked.dark, asked.back, tell)
        for how, every in found.items():
            late = sum(one > SOON for one in every)
            figures = f"n {len(every):3} median {statistics.median(every):.3f} max {max(every):.3f} late {late}"
            print(f"{asked.engine} {asked.edges} edges, {asked.dark} dark, {traffic:12} {how:12} {figures}", flush=True)


if __name__ == "__main__":
    main()
