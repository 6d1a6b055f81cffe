"""The lab in which it happens: edges, two connectors of one tunnel, an agent, and everything that uses them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

from tests.chaos.apps import App, Datagrams, Idle, Stream
from tests.chaos.programs import Copies, Iperf, Ping, Shell, Transactions
from tests.lab.two_edges import EDGES, TWO_EDGES, TwoEdges
from warren.lab import Lab, wait_until
from warren.lab.deployment import UP_WITHIN
from warren.lab.services import ECHO_PORT, start_services

TOPOLOGY = TWO_EDGES
CONNECTORS = ("connector", "connector-2")
"""Roles, and so logs; all on one host, of one tunnel."""
LINE = "home-line"
"""The network that gets worse: the laptop's way to the internet."""
ADDRESSES = ("192.168.77.10/24", "192.168.77.23/24")
WHOLE_WITHIN = 90.0
UNBALANCED, BALANCED_WITHIN = 10.0, 60.0
"""Seconds after which idle flows are opened anew, all of them, and until both connectors have some."""


class World:
    """`up` until every app goes on; `down` leaves what they have been through in their tracks."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.deployment = TwoEdges(lab)
        self.apps: list[App] = []

    def up(self) -> None:
        lab = self.lab
        services = start_services(lab)
        services.ssh.give_to(lab["laptop"], lab["payroll"].address)
        self.deployment.up()
        self.deployment.add_second()
        for name in CONNECTORS[1:]:
            self.start_connector(name)
        laptop, payroll, db = lab["laptop"], lab["payroll"], lab["db"]
        self.idle = Idle(laptop, payroll)
        self.transactions = Transactions(laptop, db)
        self.copies = Copies(laptop, payroll)
        self.balance()
        self.apps = [
            Shell(laptop, payroll),
            self.copies,
            self.transactions,
            Stream(laptop, payroll, down=False),
            Stream(laptop, payroll, down=True),
            Datagrams(laptop, payroll),
            Ping(laptop, payroll),
            Iperf(laptop, payroll),
        ]
        for app in self.apps:
            app.start()
        self.all_go_on()

    def down(self) -> None:
        for app in self.apps:
            app.over.set()
        for app in self.apps:
            app.stop()
        self.idle.close()

    # ---- programs

    def start_connector(self, name: str) -> None:
        process = self.deployment.start(
            name, self.lab["connector"], "connector", "run", "--token-file", "/root/office.token", "--drain", "3600"
        )
        process.wait_for_output("connector ready", UP_WITHIN)

    # ---- looking

    def ways(self) -> dict[str, list[str]]:
        """App → the connectors (short boot ids) of its flows, as the agent says; idle flows have one for each."""
        found: dict[str, list[str]] = {}
        flows = [flow for flow in self.deployment.status().get("flows", []) if flow["state"] != "ended"]
        for app in self.apps:
            mine = sorted((f["since"], f["connector"]) for f in flows if f["destination"] == app.destination)
            if mine and app.name in ("ssh", "scp"):  # one server: the session is the oldest flow, a copy the newest
                mine = mine[:1] if app.name == "ssh" else mine[-1:]
            found[app.name] = [connector for _, connector in mine]
        idle = f"{self.lab['payroll'].address}:{ECHO_PORT}"
        found[self.idle.track.name] = [f["connector"] for f in flows if f["destination"] == idle]
        return found

    def connectors(self) -> set[str]:
        """Those that carry something of the agent's, by their short boot ids."""
        return {peer["connector"] for peer in self.deployment.status().get("tunnels", [])}

    def both_carry(self) -> bool:
        return len({peer["connector"] for peer in self.deployment.status()["tunnels"] if peer["flows"]}) > 1

    def balance(self) -> None:
        """Idle flows, until both connectors have some."""
        began = time.monotonic()

        def shared() -> bool:
            self.idle.fill(self.both_carry)
            if not self.both_carry() and time.monotonic() - began > UNBALANCED:
                self.idle.close()
            return self.both_carry()

        wait_until(shared, "flows through both connectors", BALANCED_WITHIN)

    def went_on(self, since: float) -> list[App]:
        """Apps that have not."""
        return [app for app in self.apps if not app.track.went_on_since(since)]

    def all_go_on(self) -> None:
        """Wait for it."""
        now = time.monotonic()
        wait_until(lambda: not self.went_on(now), f"{[app.name for app in self.went_on(now)]} to go on", WHOLE_WITHIN)

    # ---- mending

    def make_whole(self, edges: Sequence[str] = EDGES) -> None:
        """Everything that runs at the beginning runs, of the edges these only, and every app goes on."""
        daemons = self.deployment.daemons
        for name in EDGES:
            if name in edges:
                self._again(name, self.deployment.run)
            else:
                daemons[name].stop()
        for name in CONNECTORS:
            self._again(name, self.start_connector)
        if daemons["agent"].returncode is not None:
            raise RuntimeError(f"the agent ended\n{daemons['agent'].tail()}")
        wait_until(lambda: self._as_many_ways(len(edges)), "circuits through every edge", WHOLE_WITHIN)
        self.all_go_on()
        self.balance()

    def _as_many_ways(self, edges: int) -> bool:
        """Whether each peer connection has a circuit through each edge that runs."""
        peers = self.deployment.status().get("tunnels", [])
        return bool(peers) and all(1 + len(peer["standby"]) == edges for peer in peers)

    def _again(self, name: str, start: Callable[[str], None]) -> None:
        process = self.deployment.daemons[name]
        if process.running:
            process.signal(signal.SIGCONT)
        else:
            start(name)

    def reopen(self) -> None:
        """Every app closes its flow as people do, and opens another one."""
        for app in self.apps:
            app.again.set()
        self.idle.close()
        wait_until(lambda: not any(app.again.is_set() for app in self.apps), "new flows", WHOLE_WITHIN)
