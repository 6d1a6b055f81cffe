"""What every peer of the benchmark is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from warren.lab import Lab
from warren.lab.process import Process

HUB = "203.0.113.10"
"""The edge host: the one that both sides reach."""
SITE = "10.10.0.0/16"
OVERLAY = "10.99.0.0/24"
HUB_INSIDE, LAPTOP_INSIDE, SITE_INSIDE = "10.99.0.1", "10.99.0.2", "10.99.0.3"
UP_WITHIN = 20.0
"""Seconds until a peer carries the first byte."""


class Missing(Exception):
    """A peer can't run on this machine; the text says why."""


class Peer:
    """`up` leads the laptop to the site's addresses, by way of the edge host where the peer has a hub."""

    name: ClassVar[str]
    path: ClassVar[str]
    """How packets go, for the table."""
    udp: ClassVar[bool] = True
    """Whether it carries UDP."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.laptop, self.hub, self.site = lab["laptop"], lab["edge"], lab["connector"]
        self.processes: dict[str, list[Process]] = {}

    @property
    def version(self) -> str:
        """Of what is installed. Raises Missing."""
        raise NotImplementedError

    def up(self) -> None:
        """Raises Missing; whatever else it raises says that the peer did not come up."""
        raise NotImplementedError

    def daemons(self) -> Mapping[str, list[int]]:
        """Where each runs (laptop, hub, site) → its processes; their children belong to them."""
        return {where: [process.pid for process in running] for where, running in self.processes.items()}

    def renew(self) -> None:
        """Forgets whatever it has learnt of the path, as far as it keeps that from one TCP connection to the next."""

    def bare_core(self) -> float | None:
        """Gbit that a processor second of the library it stands on carries, on the slower side; None: not of interest.
        Measured beside each stream, for the machine is not as fast a minute later."""
        return None

    def started(self, where: str, process: Process) -> Process:
        """`process` is one of the peer's own, and counts."""
        self.processes.setdefault(where, []).append(process)
        return process

    def route_back(self) -> None:
        """The site forwards: what comes out of the tunnel reaches the origin, and the answer comes back."""
        self.site.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        self.lab["payroll"].run(["ip", "route", "add", OVERLAY, "via", self.site.address])
