"""A connector with a valid token that means harm, beside an honest one: agents end its connections and go on, the edge
takes nothing from it, and nothing of it reaches others."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hostile_connector
from tests.lab.bystander import bystander, sniffed
from tests.lab.hostile_agent import MARK
from warren.fabric.core import frames
from warren.lab import breaking, wait_until
from warren.lab.deployment import TUNNEL, Deployment
from warren.lab.host import Host
from warren.lab.process import Process

ROOT = Path(__file__).resolve().parents[3]
ROUTE = "10.66.0.0/16"
TARGET = ("10.66.0.1", 7)
TOKEN = "/root/mallory.token"
ENDED_BY_AGENT = {"frames": 5, "control": 6, "stream": 2}
"""How many of its connections at least an agent ends for what was said on them; in other attacks, it need not."""
CLOSED_BY_EDGE = {"attachment": 6, "session": 6, "presence": 6}


@pytest.fixture(scope="module")
def mallory(deployment: Deployment) -> Iterator[Host]:
    """A host of the internet with a tunnel of its own."""
    host = deployment.lab["internet"]
    deployment.warren(deployment.edge, "tunnel", "create", "mallory", "--token-file", TOKEN)
    deployment.warren(deployment.edge, "route", "ip", "add", ROUTE, "--tunnel", "mallory")
    deployment.carry(TOKEN, deployment.edge, host)
    yield host
    deployment.warren(deployment.edge, "tunnel", "delete", "--force", "mallory")
    wait_until(lambda: "mallory" not in str(deployment.status()["tunnels"]), "the end of mallory's connections", 30)


def start(host: Host, what: str, others: list[str]) -> Process:
    words = [sys.executable, "-m", hostile_connector.__name__, TOKEN, what, *others]
    process = host.start(words, log="mallory", env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"})
    process.wait_for_output("^connected$", 20)
    return process


def said(process: Process) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(process.wait_for_output(r"^\{.*\}$", 120)[0])
    return found


@pytest.fixture(scope="module")
def foreign(deployment: Deployment, mallory: Host) -> list[str]:
    """Circuits and slots of the honest nodes, as somebody on the way reads them."""
    with sniffed(mallory) as passing:
        assert deployment.laptop.run(["curl", "-sS", "http://10.10.0.10/"]).stdout
        breaking.rebind(deployment.lab["home"])
        wait_until(lambda: fetched(deployment.laptop) and slots_in(passing), "a slot that is bound anew", 30)
    circuits = [tunnel["circuit"] for tunnel in deployment.status()["tunnels"]]
    assert circuits
    return [*circuits, *(f"slot:{slot.hex()}" for slot in sorted(slots_in(passing)))]


def fetched(laptop: Host) -> bool:
    return laptop.run(["curl", "-sS", "--max-time", "2", "http://10.10.0.10/"], check=False).returncode == 0


def slots_in(packets: list[bytes]) -> set[bytes]:
    payloads = [packet[28:] for packet in list(packets) if len(packet) > 36 and packet[9] == socket.IPPROTO_UDP]
    return {payload[1:8] for payload in payloads if payload[0] == frames.CONTROL}


def test_at_agents(deployment: Deployment, mallory: Host, foreign: list[str]) -> None:
    """An app keeps asking for it: each time its agent makes a connection, something else is wrong with it."""
    with bystander(deployment), sniffed(deployment.connector) as there:
        process = start(mallory, "agents", foreign)
        while process.running and '"ended"' not in process.output():
            with deployment.laptop.network():
                datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with datagrams, suppress(OSError):
                    datagrams.sendto(b"for mallory", TARGET)
                    with socket.create_connection(TARGET, 5) as client:
                        client.settimeout(5)
                        client.recv(1)
        found = said(process)
    for attack, ended in found["ended"].items():
        assert len([reason for reason in ended if reason]) >= ENDED_BY_AGENT.get(attack, 0), (attack, ended)
    assert found["connected"]
    assert not any(MARK in packet for packet in there)


def test_at_the_edge(deployment: Deployment, mallory: Host, foreign: list[str]) -> None:
    before = deployment.status()["tunnels"]
    with bystander(deployment):
        found = said(start(mallory, "edge", foreign))
    for attack, ended in found["ended"].items():
        assert len([reason for reason in ended if reason]) >= CLOSED_BY_EDGE[attack], (attack, ended)
    assert found["connected"] and not found["slots"]
    honest = {tunnel["circuit"] for tunnel in before if tunnel["tunnel"] == TUNNEL}
    assert honest <= {tunnel["circuit"] for tunnel in deployment.status()["tunnels"]}
