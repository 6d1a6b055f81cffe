"""Each kind of chaos once, briefly, with every app of tests/chaos going on; and bytes over links that stay bad."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.kinds import KINDS, QUICK
from tests.chaos.run import event, faults
from tests.chaos.world import LINE, TOPOLOGY, World
from tests.lab import apps
from tests.lab.conftest import faults as faults_in_logs
from tests.lab.two_edges import EDGES
from warren.lab import Impairment, Lab, Topology, breaking, wait_until
from warren.lab.services import ECHO_PORT

MIB = 1 << 20
STANDS_STILL = 1.0
ELSEWHERE = {"connector-frozen", "edge-frozen", "edge-cut"}
"""In thread/test_replicas.py and test_two_edges.py."""
BRIEFLY = [name for name, kind in KINDS.items() if not kind.long and name not in ELSEWHERE]


@pytest.fixture(scope="module")
def topology() -> Topology:
    return TOPOLOGY


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[World]:
    world = World(lab)
    try:
        world.up()
        yield world
    finally:
        world.down()
    account = world.transactions.account()
    assert account["confirmed"]
    assert not account["half done"] + account["done twice"] + account["confirmed and missing"]
    assert faults_in_logs(lab) == {}


@pytest.mark.parametrize("name", BRIEFLY)
def test_flows_outlive(world: World, name: str) -> None:
    assert faults(event(world, KINDS[name], QUICK, random.Random(6))) == []


@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(loss=0.02, delay=0.02),
        Impairment(delay=0.02, jitter=0.01, reorder=0.02, duplicate=0.05),
        Impairment(rate=20_000_000, delay=0.01),
    ],
    ids=["loss", "disorder", "narrow"],
)
def test_bytes_are_whole_over_a_bad_link(world: World, impairment: Impairment) -> None:
    lab, data = world.lab, apps.pattern(MIB)
    lab.impair(LINE, impairment)
    try:
        with apps.connected(lab["laptop"], lab["payroll"].address, ECHO_PORT) as client:
            assert exchange(client, data) == data
    finally:
        lab.links.clear(LINE)


def test_a_flow_outlives_a_nat_of_the_office_that_forgets(world: World) -> None:
    lab = world.lab
    with apps.connected(lab["laptop"], lab["payroll"].address, ECHO_PORT) as client:
        for word in (b"before", b"after"):
            assert exchange(client, word) == word
            breaking.rebind(lab["office"])
        assert exchange(client, b"at last") == b"at last"


@pytest.fixture
def quiet(world: World) -> Lab:
    """The lab, its apps stopped."""
    world.down()
    return world.lab


@pytest.mark.parametrize("roles", [("agent",), EDGES], ids=["agent", "edges"])
def test_a_flow_outlives_daemons_that_stand_still(world: World, quiet: Lab, roles: tuple[str, ...]) -> None:
    daemons = [world.deployment.daemons[role] for role in roles]
    with apps.connected(quiet["laptop"], quiet["payroll"].address, ECHO_PORT) as client:
        assert exchange(client, b"before") == b"before"
        for daemon in daemons:
            daemon.freeze()
        try:
            client.sendall(b"meanwhile")
            client.settimeout(STANDS_STILL)
            with pytest.raises(TimeoutError):
                client.recv(100)
        finally:
            for daemon in daemons:
                daemon.thaw()
        client.settimeout(apps.PATIENCE)
        assert client.recv(100) == b"meanwhile"
    wait_until(world.deployment.status, "the agent's status")


def exchange(client: socket.socket, data: bytes) -> bytes:
    """Send beside the reader; what comes back, as long as what was sent."""
    sending = threading.Thread(target=client.sendall, args=(data,), daemon=True)
    sending.start()
    got = bytearray()
    while len(got) < len(data):
        part = client.recv(1 << 16)
        assert part, f"the end after {len(got)} bytes"
        got += part
    sending.join()
    return bytes(got)
