"""A tunnel gets another key while its connectors run: flows go on, both keys open new ones, then only the new one."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.lab import apps
from tests.lab.thread.test_connector import works
from warren.agent.peers import SPREAD
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process

WITHIN = 20.0
CHUNK = apps.pattern(50_000)
TOKEN, NEW = "/root/office.token", "/root/new.token"


@contextmanager
def talking(sock: socket.socket) -> Iterator[list[int]]:
    """A flow that says something all the while, and hears exactly that; how many bytes it did so far."""
    done, over, faults = [0], threading.Event(), list[str]()

    def talk() -> None:
        sock.settimeout(WITHIN)
        try:
            while not over.is_set():
                sock.sendall(CHUNK)
                back = bytearray()
                while len(back) < len(CHUNK) and (part := sock.recv(len(CHUNK) - len(back))):
                    back += part
                if back != CHUNK:
                    raise ValueError(f"{len(back)} bytes came back, or other ones")
                done[0] += len(back)
                time.sleep(0.01)
        except (OSError, ValueError) as error:
            faults.append(str(error))

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()
        assert faults == []


def info(deployment: Deployment) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(deployment.warren(deployment.edge, "tunnel", "info", "office", "--json"))
    return said


def revisions(deployment: Deployment) -> list[int]:
    return sorted(one["revision"] for one in info(deployment)["connectors"])


def used(deployment: Deployment) -> int:
    """Connectors that have flows of the agent."""
    return len({peer["connector"] for peer in deployment.status()["tunnels"] if peer["flows"]})


@pytest.fixture
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


@contextmanager
def another_connector(deployment: Deployment, name: str) -> Iterator[Process]:
    """With a token file of its own."""
    host, here = deployment.connector, len(info(deployment)["connectors"])
    host.write(f"/root/{name}.token", host.read(TOKEN), 0o600)
    command = ["warren", "connector", "run", "--token-file", f"/root/{name}.token"]
    process = host.start(command, log=f"warren-connector-{name}")
    try:
        process.wait_for_output("connector ready", WITHIN)
        wait_until(lambda: len(info(deployment)["connectors"]) > here, "the connector at the edge", WITHIN)
        yield process
    finally:
        process.stop()


def take_new_token(deployment: Deployment, process: Process, path: str) -> None:
    deployment.connector.run(["install", "-m", "600", NEW, path])
    process.signal(signal.SIGHUP)
    process.wait_for_output("token reread", WITHIN)


def test_a_tunnels_key_is_changed_under_an_open_flow(deployment: Deployment, laptop: Host) -> None:
    payroll, usual = deployment.lab["payroll"], deployment.daemons["connector"]
    with ExitStack() as stack:
        port = stack.enter_context(apps.origin(payroll, apps.echo))
        done = stack.enter_context(talking(stack.enter_context(apps.connected(laptop, payroll.address, port))))
        laggard = stack.enter_context(another_connector(deployment, "laggard"))
        third = stack.enter_context(another_connector(deployment, "third"))
        before = info(deployment)
        assert (before["status"], before["until"], revisions(deployment)) == ("healthy", 0, [1, 1, 1])

        deployment.warren(deployment.edge, "tunnel", "rotate", "office", "--token-file", NEW)
        after = info(deployment)
        assert (after["former"], after["revision"]) == (before["key"], 2)
        assert works(laptop), "the old key still opens flows"

        deployment.connector.write(TOKEN, "warren-tunnel-nonsense", 0o600)
        usual.signal(signal.SIGHUP)
        usual.wait_for_output("the token was not reread, the one in use stays", WITHIN)
        deployment.carry(NEW, deployment.edge, deployment.connector)
        take_new_token(deployment, usual, TOKEN)
        take_new_token(deployment, third, "/root/third.token")
        wait_until(lambda: revisions(deployment) == [1, 2, 2], "two connectors with the new key", WITHIN)

        def at_all_three() -> bool:
            """Two of them have a peer connection that was made since: one under each key."""
            for _ in range(SPREAD // 2):
                stack.enter_context(apps.connected(laptop, payroll.address, port))
            return used(deployment) == 3

        wait_until(at_all_three, "flows under both keys", WITHIN)

        deployment.warren(deployment.edge, "tunnel", "rotate", "office", "--finish")
        laggard.wait_for_output("replaced by a newer one", WITHIN)
        wait_until(lambda: revisions(deployment) == [2, 2], "the laggard to be turned away", WITHIN)
        assert (info(deployment)["status"], info(deployment)["until"]) == ("healthy", 0)
        wait_until(lambda: works(laptop), "a new flow under the new key", WITHIN)
        for _ in range(4):
            assert apps.connect(laptop, payroll.address, port).error == ""
        so_far = done[0]
        wait_until(lambda: done[0] > so_far, "the first flow, which goes on", WITHIN)
