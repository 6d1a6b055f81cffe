"""The usual deployment with an edge that is known by its name and whose clock can be set, and short hold times."""

from __future__ import annotations

import time
from pathlib import Path

from tests.lab import apps
from tests.lab.roaming.talk import WITHIN
from warren.lab import breaking, wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.services import ECHO_PORT

EDGE_NAME = "edge.example.net"
HOLD = 60.0
"""Seconds for which the connector keeps a silent agent's flows, here."""
START_WITHIN = 60.0
WIFI, CELL = ("192.168.77.1", "eth0"), ("10.64.0.1", "cell0")
WIFI6 = ("2001:db8:77::1", "eth0")
CLOCK = "/etc/faketime"
CONNECTOR_SETTINGS = "/etc/warren/connector.yaml"


class Roaming(Deployment):
    """`set_clock` sets the wall clock of the edge's process; those of the commands on its host stay."""

    def edge_up(self) -> None:
        self.set_clock("+0")
        self.warren(self.edge, "edge", "init", "--public", EDGE_NAME)
        self.run_edge()

    def run_edge(self) -> Process:
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        fake = {"FAKETIME_TIMESTAMP_FILE": CLOCK, "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        command = ["warren", "edge", "run"]
        process = self.edge.start(command, log="warren-edge", env={"LD_PRELOAD": str(library), **fake})
        self.daemons["edge"] = process
        process.wait_for_output("edge runs", START_WITHIN)
        return process

    def set_clock(self, offset: str) -> None:
        """Such as +1h; a running edge has it within a second."""
        self.edge.write(CLOCK, offset + "\n")

    def connector_up(self) -> None:
        self.carry("/root/office.token", self.edge, self.connector)
        self.start_connector()

    def start_connector(self, **settings: float) -> None:
        """With `HOLD`, and further settings."""
        said = {"hold": HOLD, **settings}
        self.connector.write(CONNECTOR_SETTINGS, "".join(f"{key}: {value}\n" for key, value in said.items()))
        self.run_connector()

    def restart_connector(self, **settings: float) -> None:
        self.daemons["connector"].kill()
        self.start_connector(**settings)

    def told(self, words: str) -> int:
        """How often the agent's log has them."""
        return self.daemons["agent"].output().count(words)

    def opens(self, address: str = "") -> bool:
        """Whether a new flow does."""
        return apps.connect(self.laptop, address or self.lab["payroll"].address, ECHO_PORT).error == ""

    def opens_soon(self) -> None:
        wait_until(self.opens, "a new flow", WITHIN)


def route(laptop: Host, to: str, way: tuple[str, str]) -> None:
    """`way`: a gateway and a card."""
    laptop.run(["ip", "route", "replace", to, "via", way[0], "dev", way[1]])


def unroute(laptop: Host, to: str) -> None:
    laptop.run(["ip", "-6" if ":" in to else "-4", "route", "del", to])


def suspended(deployment: Deployment, seconds: float) -> None:
    """All of the agent stands still, as on a laptop whose lid is closed."""
    breaking.freeze(deployment.laptop, "warren agent up")
    try:
        time.sleep(seconds)
    finally:
        breaking.thaw(deployment.laptop, "warren agent up")


def blackout(deployment: Deployment, seconds: float) -> None:
    deployment.lab.links.cut("home-line")
    time.sleep(seconds)
    deployment.lab.links.mend("home-line")
