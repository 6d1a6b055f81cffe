"""Daemons with no more powers than their units give them: everything works, and a killed agent leaves nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import faults
from tests.lab.thread.test_flows import CURL
from warren.agent.service import CAPABILITIES as AGENT
from warren.connector.service import CAPABILITIES as CONNECTOR
from warren.edge.service import CAPABILITIES as EDGE
from warren.lab import Lab, wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.services import PAGE, Services

CAPABILITIES = {"agent": AGENT, "connector": CONNECTOR, "edge": EDGE}
NOTIFY = "\0warren-notify"


class Bounded(Deployment):
    """Starts daemons as systemd would by their units: capabilities, a socket to notify, the connector's own user."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.managers: dict[str, socket.socket] = {}
        """Where systemd would listen, by role."""

    def start(self, role: str, host: Host, *words: str) -> Process:
        kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in CAPABILITIES[role])
        bounded = ["setpriv", "--no-new-privs", f"--bounding-set=-all{kept}"]
        if role == "connector":  # AmbientCapabilities
            bounded += [f"--inh-caps=-all{kept}", f"--ambient-caps=-all{kept}"]
            bounded += ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        else:
            bounded += ["--inh-caps=-all"]
        if role not in self.managers:
            with host.network():  # abstract names belong to a network namespace
                manager = self.managers[role] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                manager.bind(NOTIFY)
            manager.settimeout(20)
        env = {"NOTIFY_SOCKET": "@" + NOTIFY[1:]}
        process = self.daemons[role] = host.start([*bounded, "warren", *words], log=f"warren-{role}", env=env)
        return process

    def run_connector(self, *more: str) -> Process:
        """Its user reads the token from a credential, as no other file is its own."""
        self.connector.run(["chown", "-R", "nobody:nogroup", "/root"])
        return super().run_connector(*more)


@pytest.fixture(scope="module")
def deployment(lab: Lab, services: Services) -> Iterator[Bounded]:
    deployment = Bounded(lab)
    deployment.up()
    yield deployment
    for manager in deployment.managers.values():
        manager.close()
    assert faults(lab) == {}


def bounding_set(process: Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    [found] = [line.split()[1] for line in lines if line.startswith("CapBnd:")]
    return int(found, 16)


@pytest.mark.parametrize("role", CAPABILITIES)
def test_systemd_is_told_when_a_daemon_is_ready(deployment: Bounded, role: str) -> None:
    assert deployment.managers[role].recv(64) == b"READY=1"


def test_flows_and_names_work_with_the_units_capabilities(deployment: Deployment) -> None:
    for role, process in deployment.daemons.items():
        assert bin(bounding_set(process)).count("1") == len(CAPABILITIES[role])
    assert deployment.laptop.run([*CURL, "http://10.10.0.10/"]).stdout == PAGE
    assert deployment.laptop.run([*CURL, "http://payroll.internal/"]).stdout == PAGE
    assert deployment.status()["dns"]["system"] == "set"
    assert "1 received" in deployment.laptop.run(["ping", "-c", "1", "-W", "5", "10.10.0.10"]).stdout


def test_edge_and_connector_take_turns_on_a_processor_and_the_agent_does_not(deployment: Bounded) -> None:
    chosen = {role: os.sched_getscheduler(process.pid) for role, process in deployment.daemons.items()}
    assert chosen == {"edge": os.SCHED_BATCH, "connector": os.SCHED_BATCH, "agent": os.SCHED_OTHER}


def test_the_guardian_has_enough_of_them_too(deployment: Deployment) -> None:
    laptop = deployment.laptop
    ours = laptop.read("/etc/resolv.conf")
    deployment.daemons["agent"].kill()
    wait_until(lambda: laptop.read("/etc/resolv.conf") != ours, "the resolver as it was")
    wait_until(lambda: "10.10.0.0/16" not in laptop.run(["ip", "route"]).stdout, "the routes as they were")
