"""Flows through Warren while networks are bad, addresses change and programs stand still: every byte comes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import apps
from warren.lab import Impairment, Lab, breaking, wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import ECHO_PORT

MIB = 1 << 20
STANDS_STILL = 2.0


@pytest.fixture(scope="module")
def payroll(deployment: Deployment) -> Host:
    return deployment.lab["payroll"]


@pytest.fixture(autouse=True)
def mended(lab: Lab) -> Iterator[None]:
    yield
    for network in ("home-line", "office-line"):
        lab.links.clear(network)
        lab.links.mend(network)


@contextmanager
def echoed(laptop: Host, payroll: Host) -> Iterator[socket.socket]:
    """A flow to the echo server that works; at the end it must still."""
    with apps.connected(laptop, payroll.address, ECHO_PORT) as client:
        assert_echo(client, b"before")
        yield client
        assert_echo(client, b"after")


def assert_echo(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    got = b""
    while len(got) < len(data):
        got += client.recv(len(data) - len(got))
    assert got == data


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


@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(loss=0.02, delay=0.02),
        Impairment(delay=0.02, jitter=0.01, reorder=0.02, duplicate=0.05),
        Impairment(rate=20_000_000, delay=0.01),
    ],
    ids=["loss", "disorder", "narrow"],
)
def test_bytes_are_whole_over_a_bad_link(deployment: Deployment, payroll: Host, impairment: Impairment) -> None:
    deployment.lab.impair("home-line", impairment)
    data = apps.pattern(2 * MIB)
    with apps.connected(deployment.laptop, payroll.address, ECHO_PORT) as client:
        assert exchange(client, data) == data


def test_a_flow_outlives_a_cut(deployment: Deployment, payroll: Host) -> None:
    with echoed(deployment.laptop, payroll) as client:
        deployment.lab.links.cut("home-line")
        client.sendall(b"meanwhile")
        client.settimeout(STANDS_STILL)
        with pytest.raises(TimeoutError):
            client.recv(100)
        deployment.lab.links.mend("home-line")
        client.settimeout(apps.PATIENCE)
        assert client.recv(100) == b"meanwhile"


def test_a_flow_outlives_another_address_of_the_laptop(deployment: Deployment, payroll: Host) -> None:
    with echoed(deployment.laptop, payroll) as client:
        before = breaking.readdress(deployment.laptop, "192.168.77.23/24")
        try:
            assert_echo(client, b"from another address")
        finally:
            breaking.readdress(deployment.laptop, before)


@pytest.mark.parametrize("router", ["home", "office"])
def test_a_flow_outlives_a_nat_that_forgets(deployment: Deployment, payroll: Host, router: str) -> None:
    with echoed(deployment.laptop, payroll) as client:
        for word in (b"one", b"two"):
            breaking.rebind(deployment.lab[router])
            assert_echo(client, word)


@pytest.mark.parametrize("role", ["agent", "edge", "connector"])
def test_a_flow_outlives_a_daemon_that_stands_still(deployment: Deployment, payroll: Host, role: str) -> None:
    daemon = deployment.daemons[role]
    with apps.connected(deployment.laptop, payroll.address, ECHO_PORT) as client:
        assert_echo(client, b"before")
        daemon.freeze()
        try:
            client.sendall(b"meanwhile")
            client.settimeout(STANDS_STILL)
            with pytest.raises(TimeoutError):
                client.recv(100)
        finally:
            daemon.thaw()
        client.settimeout(apps.PATIENCE)
        assert client.recv(100) == b"meanwhile"
        assert_echo(client, b"after")
    wait_until(lambda: not [flow for flow in deployment.status()["flows"] if flow["state"] != "ended"], "the end")
