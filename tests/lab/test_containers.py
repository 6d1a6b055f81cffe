"""What the images run, run in the lab: as their user, without a capability, in folders as the Dockerfile makes them.

No container engine is needed: what the build stage installs is tried by tests/loopback/test_installing.py; the RUN step
of the runtime stage is run in the lab's hosts, and so are entry points, commands and health checks.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import faults
from tests.lab.thread.test_flows import CURL
from tests.unit.test_containers import STAGES, WARREN, check_health, command_of
from warren.lab import Lab, wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.services import PAGE, Services

AS_USER = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
AS_USER += ["--reuid=10001", "--regid=10001", "--clear-groups"]
SOCKET = dict([STAGES["edge"].last("ENV").split("=", 1)])
HOME = {"HOME": "/var/lib/warren", **SOCKET}


def words(role: str, command: list[str]) -> list[str]:
    assert command[0] == WARREN
    return [*AS_USER, "warren", *command[1:]]


class Contained(Deployment):
    """Edge and connector as their images have them."""

    def prepare(self, host: Host) -> None:
        [step] = [rest for word, rest in STAGES["runtime"].lines if word == "RUN"]
        host.run(["sh", "-ec", step])  # users are the host's own: its /etc is an overlay
        host.run(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"])

    def warren(self, host: Host, *words: str, check: bool = True, stdin: str | None = None) -> str:
        return host.run(["warren", *words], check=check, input=stdin, env=SOCKET).stdout

    def edge_up(self) -> None:
        self.prepare(self.edge)
        self.edge.run([*AS_USER, "warren", "edge", "init", "--public", "203.0.113.10"], env=HOME)
        self.run_edge()

    def run_edge(self) -> Process:
        process = self.daemons["edge"] = self.edge.start(
            words("edge", command_of(STAGES["edge"])), log="warren-edge", env=HOME
        )
        process.wait_for_output("edge runs", 15)
        return process

    def connector_up(self) -> None:
        self.prepare(self.connector)
        self.connector.write("/run/secrets/token", self.edge.read("/root/office.token"), 0o600)
        self.connector.run(["chown", "10001:10001", "/run/secrets/token"])
        process = self.daemons["connector"] = self.connector.start(
            words("connector", command_of(STAGES["connector"])), log="warren-connector", env=HOME
        )
        process.wait_for_output("connector ready", 15)

    def make_tunnel(self) -> None:
        self.edge.run(["mkdir", "-p", "/root/.config/warren"])
        self.edge.run(["cp", "-r", "/var/lib/warren/.config/warren/admin", "/root/.config/warren/"])
        super().make_tunnel()


@pytest.fixture(scope="module")
def deployment(lab: Lab, services: Services) -> Iterator[Contained]:
    deployment = Contained(lab)
    deployment.up()
    yield deployment
    assert faults(lab) == {}


def health(deployment: Contained, role: str) -> int:
    host = deployment.edge if role == "edge" else deployment.connector
    return host.run(words(role, check_health(STAGES[role])), check=False, env=HOME).returncode


def test_flows_pass_through_what_the_images_run(deployment: Contained) -> None:
    assert deployment.laptop.run([*CURL, "http://payroll.internal/"]).stdout == PAGE
    assert "1 received" in deployment.laptop.run(["ping", "-c", "1", "-W", "5", "10.10.0.10"]).stdout


def test_the_health_checks_tell_the_truth(deployment: Contained) -> None:
    assert (health(deployment, "edge"), health(deployment, "connector")) == (0, 0)
    deployment.daemons["edge"].stop()
    try:
        assert health(deployment, "edge") == 1
        wait_until(lambda: health(deployment, "connector") == 1, "the connector without an edge", 30)
    finally:
        deployment.run_edge()
    wait_until(lambda: health(deployment, "connector") == 0, "the connector with its edge", 30)
