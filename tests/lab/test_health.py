"""Daemons that are configured by files; /ready and /metrics tell the truth; a log is rotated; a device is taken out."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import apps
from tests.lab.conftest import faults
from tests.lab.thread.test_flows import CURL
from warren.fabric.engines import engine
from warren.lab import Lab, wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import PAGE, Services

CONNECTOR = "10.10.0.2"
FILES = {
    "edge": "metrics: 127.0.0.1:9311\nlog: {level: debug}\n",
    "connector": f"metrics: {CONNECTOR}:9310\nlog: {{level: debug}}\n",
    "laptop": "interface: files0\nmetrics: 127.0.0.1:9312\nlog: {file: /root/agent.log, format: json}\n",
}


@pytest.fixture(scope="module")
def deployment(lab: Lab, services: Services) -> Iterator[Deployment]:
    """The usual one, each daemon with a file in /etc/warren."""
    for host, role in (("edge", "edge"), ("connector", "connector"), ("laptop", "agent")):
        lab[host].run(["mkdir", "-p", "/etc/warren"])
        lab[host].write(f"/etc/warren/{role}.yaml", FILES[host])
    deployment = Deployment(lab)
    deployment.up()
    yield deployment
    assert faults(lab) == {}


def ready(host: Host, address: str) -> tuple[int, dict[str, Any]]:
    """The status and what it says; 0: nobody answers."""
    said = host.run(["curl", "-s", "-w", "\n%{http_code}", f"http://{address}/ready"], check=False).stdout
    body, _, status = said.rpartition("\n")
    return int(status or 0), json.loads(body) if body else {}


def metrics(host: Host, address: str) -> dict[str, float]:
    """Value by name and labels."""
    page = host.run(["curl", "-sf", f"http://{address}/metrics"]).stdout
    lines = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_the_connector_and_the_edge_are_ready(deployment: Deployment) -> None:
    status, said = ready(deployment.connector, f"{CONNECTOR}:9310")
    assert (status, said["ready"], said["tunnel"]) == (200, True, "office")
    assert [edge["state"] for edge in said["edges"]] == ["connected"]
    assert said["icmp"] in ("unprivileged", "raw")
    status, said = ready(deployment.edge, "127.0.0.1:9311")
    running = {"engine": engine().name, "controller": engine().controller}
    assert (status, said) == (200, {"ready": True, "socket": "bound", "store": "open"} | running)


def test_metrics_count_flows_and_refusals(deployment: Deployment) -> None:
    laptop, connector, edge = deployment.laptop, deployment.connector, deployment.edge
    before = metrics(connector, f"{CONNECTOR}:9310")
    assert laptop.run([*CURL, "http://10.10.0.10/"]).stdout == PAGE
    assert apps.connect(laptop, CONNECTOR, 9310).error == "EHOSTUNREACH"
    after = metrics(connector, f"{CONNECTOR}:9310")
    opened = "warren_connector_flows_opened_total"
    assert after[opened] == before[opened] + 1
    assert after['warren_connector_flows_refused_total{reason="reserved_address"}'] == 1
    assert after["warren_connector_agents"] == 1
    judged = metrics(edge, "127.0.0.1:9311")
    assert judged['warren_edge_decisions_total{reason="granted"}'] >= 2
    assert judged['warren_edge_attached{role="agent"}'] == 1
    assert judged['warren_edge_attached{role="connector"}'] == 1
    assert judged["warren_edge_circuits"] >= 1


def test_the_agent_tells_its_metrics_over_http_and_by_its_socket(deployment: Deployment) -> None:
    laptop = deployment.laptop
    status, said = ready(laptop, "127.0.0.1:9312")
    assert (status, said["ready"], said["device"]) == (200, True, "laptop")
    before = metrics(laptop, "127.0.0.1:9312")
    assert laptop.run([*CURL, "http://10.10.0.10/"]).stdout == PAGE
    assert laptop.run(["ping", "-c", "1", "-W", "5", "10.10.0.10"]).returncode == 0
    after = metrics(laptop, "127.0.0.1:9312")
    opened = "warren_agent_tcp_flows_opened_total"
    assert after[opened] == before[opened] + 1
    assert after['warren_agent_flows{protocol="icmp"}'] == 1
    assert after["warren_agent_routes"] == 1
    by_socket = deployment.warren(laptop, "agent", "metrics")
    assert 'warren_agent_edge_connected{edge="203.0.113.10:4433"} 1' in by_socket


def test_a_connector_without_an_edge_is_not_ready(deployment: Deployment) -> None:
    deployment.daemons["edge"].stop()
    wait_until(lambda: ready(deployment.connector, f"{CONNECTOR}:9310")[0] == 503, "that it says so", 30)
    assert ready(deployment.edge, "127.0.0.1:9311")[0] == 0
    deployment.run_edge()
    wait_until(lambda: ready(deployment.connector, f"{CONNECTOR}:9310")[0] == 200, "that it is back", 30)


def test_the_agent_logs_into_a_file_that_may_be_rotated(deployment: Deployment) -> None:
    laptop, agent = deployment.laptop, deployment.daemons["agent"]
    assert deployment.status()["interface"] == "files0"
    first = [json.loads(line) for line in laptop.read("/root/agent.log").splitlines()]
    assert "agent runs" in [line["event"] for line in first]
    laptop.run(["mv", "/root/agent.log", "/root/agent.log.1"])
    agent.signal(signal.SIGHUP)
    wait_until(lambda: laptop.run(["test", "-e", "/root/agent.log"], check=False).returncode == 0, "a new file")
    assert agent.running


def test_watch_is_a_line_a_time(deployment: Deployment) -> None:
    words = ["warren", "agent", "status", "--watch", "--json", "--interval", "0.1"]
    with deployment.laptop.start(words, log="watch") as watching:
        wait_until(lambda: watching.output().count("\n") >= 3, "three lines")
        line = watching.output().splitlines()[0]
    assert json.loads(line)["device"]["name"] == "laptop"
    assert not re.search(r"Traceback", line)


def test_diagnoses_hold_what_is_needed_and_no_secret(deployment: Deployment) -> None:
    daemons = {"agent": deployment.laptop, "connector": deployment.connector, "edge": deployment.edge}
    edge = "/var/lib/warren/edge"
    files = {
        deployment.laptop: ("/var/lib/warren/agent/device.key", "/root/laptop.key"),
        deployment.connector: ("/root/office.token",),
        deployment.edge: (f"{edge}/edge.key", f"{edge}/grant.key", "/root/office.token", "/root/laptop.key"),
    }
    secrets = {line for host, paths in files.items() for path in paths for line in host.read(path).split()}
    secrets = {secret for secret in secrets if len(secret) > 40}
    assert len(secrets) >= 5
    wanted = {"agent": "round_trip_ms", "connector": "warren_connector_flows_opened_total", "edge": "10.10.0.0/16"}
    for role, host in daemons.items():
        deployment.warren(host, role, "diag", "/root/diag.tar.gz")
        whole = host.run(["tar", "-xzOf", "/root/diag.tar.gz"]).stdout
        assert "could not be had" not in re.sub(r"could not be had: FileNotFoundError.*resolvectl", "", whole)
        assert not [secret for secret in secrets if secret in whole]
        assert wanted[role] in whole


def test_unenrolling_leaves_nothing(deployment: Deployment) -> None:
    laptop = deployment.laptop
    done = laptop.run(["warren", "agent", "unenrol", "--yes"], check=False)
    assert done.returncode == 2
    assert "warren agent down" in done.stderr
    deployment.warren(laptop, "agent", "down")
    assert "laptop is not enrolled any more" in deployment.warren(laptop, "agent", "unenrol", "--yes")
    assert not laptop.path("/var/lib/warren").exists()
    done = laptop.run(["warren", "agent", "up"], check=False)
    assert "not enrolled" in laptop.read("/root/agent.log") + done.stderr
