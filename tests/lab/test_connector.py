"""The connector has the last word, drains, and comes back."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest

from tests.lab import apps
from tests.lab.test_flows import CURL
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import PAGE

BACK_WITHIN = 20.0
HOSTS = "127.0.0.1 localhost loop.internal\n169.254.169.254 metadata.internal\n10.10.0.2 connector\n"


@pytest.fixture(scope="module", autouse=True)
def names_that_lead_astray(deployment: Deployment) -> None:
    """The site's own resolver says 127.0.0.1 and 169.254.169.254 for two names with routes."""
    deployment.connector.write("/etc/hosts", HOSTS)
    for name in ("loop.internal", "metadata.internal"):
        deployment.warren(deployment.edge, "route", "host", "add", name, "--tunnel", "office")
    wait_until(lambda: "metadata.internal" in deployment.status()["dns"]["zones"], "the zones at the agent")


@pytest.fixture
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


@pytest.fixture
def usual_connector(deployment: Deployment) -> Iterator[None]:
    """For tests that replace the connector: the usual one runs again afterwards."""
    yield
    deployment.daemons["connector"].stop()
    deployment.run_connector()
    wait_until(lambda: works(deployment.laptop), "a flow through the new connector", BACK_WITHIN)


def replace(deployment: Deployment, *words: str) -> None:
    deployment.daemons["connector"].stop()
    deployment.run_connector(*words)
    wait_until(lambda: works(deployment.laptop), "a flow through the new connector", BACK_WITHIN)


def works(laptop: Host) -> bool:
    return laptop.run([*CURL, "http://10.10.0.10/"], check=False).stdout == PAGE


def resolved(laptop: Host, name: str) -> str:
    return laptop.run(["dig", "+short", name]).stdout.strip()


def refusals(deployment: Deployment) -> list[tuple[str, str]]:
    return [(refused["destination"], refused["reason"]) for refused in deployment.status()["refused"]]


@pytest.mark.parametrize("name", ["loop.internal", "metadata.internal"])
def test_reserved_addresses_are_refused_unless_named(deployment: Deployment, laptop: Host, name: str) -> None:
    with deployment.connector.network(), socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        outcome = apps.connect(laptop, resolved(laptop, name), port)
    assert outcome.error == "EHOSTUNREACH"
    assert refusals(deployment)[-1] == (f"{name}:{port}", "reserved_address")


def test_the_ceiling_refuses_the_rest(deployment: Deployment, laptop: Host, usual_connector: None) -> None:
    replace(deployment, "--allow", "10.10.0.10/32:80", "--allow", "127.0.0.1/32:8080-8090")
    assert apps.connect(laptop, "10.10.0.10", 22).error == "EHOSTUNREACH"
    assert refusals(deployment)[-1] == ("10.10.0.10:22", "ceiling")
    assert apps.connect(laptop, resolved(laptop, "db.internal"), 5432).error == "EHOSTUNREACH"
    assert refusals(deployment)[-1] == ("db.internal:5432", "ceiling")
    with deployment.connector.network(), socket.create_server(("127.0.0.1", 8085)):
        assert apps.connect(laptop, resolved(laptop, "loop.internal"), 8085).error == ""
    assert apps.connect(laptop, resolved(laptop, "metadata.internal"), 80).error == "EHOSTUNREACH"
    assert refusals(deployment)[-1] == ("metadata.internal:80", "reserved_address")


def test_sigterm_drains(deployment: Deployment, laptop: Host, usual_connector: None) -> None:
    payroll, connector = deployment.lab["payroll"], deployment.daemons["connector"]
    with apps.origin(payroll, apps.echo) as port, apps.connected(laptop, payroll.address, port) as client:
        client.sendall(b"before")
        assert client.recv(64) == b"before"
        connector.signal(signal.SIGTERM)
        wait_until(lambda: apps.connect(laptop, payroll.address, 80).error, "that new flows are refused")
        assert connector.running
        client.sendall(b"after")
        assert client.recv(64) == b"after"
        client.shutdown(socket.SHUT_WR)
        assert apps.read_all(client) == b""
    assert connector.wait() == 0


def test_flows_end_with_a_reset_when_the_connector_stops_at_once(
    deployment: Deployment, laptop: Host, usual_connector: None
) -> None:
    payroll, connector = deployment.lab["payroll"], deployment.daemons["connector"]
    with apps.origin(payroll, apps.read_until_error) as port, apps.connected(laptop, payroll.address, port) as client:  # type: ignore[arg-type]
        connector.signal(signal.SIGINT)
        assert apps.read_until_error(client) == (b"", "ECONNRESET")
    assert connector.wait() in (0, 130)


def test_new_flows_work_after_a_connector_was_killed_and_started_again(deployment: Deployment, laptop: Host) -> None:
    deployment.daemons["connector"].kill()
    deployment.run_connector()
    wait_until(lambda: works(laptop), "a flow through the new connector", BACK_WITHIN)


def test_a_second_connector_takes_over(deployment: Deployment, laptop: Host, usual_connector: None) -> None:
    words = ["warren", "connector", "run", "--token-file", "/root/office.token"]
    with deployment.connector.start(words, log="warren-connector-2") as second:
        second.wait_for_output("connector ready")
        deployment.daemons["connector"].kill()
        wait_until(lambda: works(laptop), "a flow through the second connector", BACK_WITHIN)


def test_new_flows_work_after_the_edge_was_killed_and_started_again(deployment: Deployment, laptop: Host) -> None:
    deployment.daemons["edge"].kill()
    deployment.run_edge()
    wait_until(lambda: works(laptop), "a flow through the new edge", BACK_WITHIN)


def test_an_open_flow_outlives_a_restart_of_the_edge(deployment: Deployment, laptop: Host) -> None:
    payroll = deployment.lab["payroll"]
    with apps.origin(payroll, apps.echo) as port, apps.connected(laptop, payroll.address, port) as client:
        client.settimeout(BACK_WITHIN + 10)
        client.sendall(b"before")
        assert client.recv(64) == b"before"
        deployment.daemons["edge"].stop()
        deployment.run_edge()
        client.sendall(b"after")
        assert client.recv(64) == b"after"
