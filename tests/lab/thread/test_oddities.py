"""What apps seldom do, as docs/routing.md says what comes of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.lab import apps
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import ECHO_PORT, PAGE

CURL = ["curl", "-sS", "--max-time", "10"]
LAN_ADDRESS = "192.168.77.10"

# Sends to an address by UDP; what came back.
SENT = """
import errno, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
sock.settimeout(1)
try:
    sock.connect((sys.argv[1], 7))
    sock.send(b"anybody?")
    print(sock.recv(100))
except OSError as error:
    print(errno.errorcode.get(error.errno, type(error).__name__))
"""


@pytest.fixture
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_urgent_data_stays_in_line(deployment: Deployment, laptop: Host, up: bool) -> None:
    """No byte of it is lost, and none overtakes another; that it was urgent is not told."""
    payroll, got = deployment.lab["payroll"], list[bytes]()

    def send(sock: socket.socket) -> None:
        sock.sendall(b"before ")
        sock.send(b"!", socket.MSG_OOB)
        sock.sendall(b" after")
        sock.shutdown(socket.SHUT_WR)

    def read(sock: socket.socket) -> None:
        got.append(apps.read_all(sock))

    there, here = (read, send) if up else (send, read)
    with apps.origin(payroll, there) as port, apps.connected(laptop, payroll.address, port) as client:
        here(client)
        if up:
            apps.read_all(client)
    assert got == [b"before ! after"]


@pytest.mark.parametrize("size", [1400, 4000, 20_000])
def test_fragments_are_put_together(laptop: Host, size: int) -> None:
    """Echo requests that the app's kernel has to cut, also where it may cut them itself only (DF unset)."""
    said = laptop.run(["ping", "-c", "2", "-i", "0.2", "-W", "5", "-s", str(size), "-M", "dont", "10.10.0.10"]).stdout
    assert "2 received" in said


def test_what_may_not_be_cut_is_told_so(laptop: Host) -> None:
    done = laptop.run(["ping", "-c", "1", "-W", "5", "-s", "4000", "-M", "do", "10.10.0.10"], check=False)
    assert done.returncode != 0 and "message too long" in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("address", ["224.0.0.251", "255.255.255.255"])
def test_multicast_and_broadcast_are_not_carried(laptop: Host, address: str) -> None:
    """Nothing comes back, and no error either: as where nobody listens."""
    assert laptop.python(SENT, address).stdout.strip() == "TimeoutError"


def test_broadcast_to_a_routed_network_is_refused(laptop: Host) -> None:
    """By the connector's kernel, which takes no broadcast of ours."""
    assert laptop.python(SENT, "10.10.0.255").stdout.strip() == "EHOSTUNREACH"


def test_an_app_bound_to_another_address_of_the_host(laptop: Host) -> None:
    assert laptop.run([*CURL, "--interface", LAN_ADDRESS, "http://10.10.0.10/"]).stdout == PAGE
    with laptop.network(), socket.socket() as client:
        client.settimeout(apps.PATIENCE)
        client.bind((LAN_ADDRESS, 0))
        client.connect(("10.10.0.10", ECHO_PORT))
        assert client.getsockname()[0] == LAN_ADDRESS
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"


def test_an_app_bound_to_an_interface(laptop: Host) -> None:
    """To the agent's, it is as ever; bound to another one it goes there, past the agent, as it asked for."""
    assert laptop.run([*CURL, "--interface", "warren0", "http://10.10.0.10/"]).stdout == PAGE
    past = laptop.run([*CURL, "--max-time", "3", "--interface", "eth0", "http://10.10.0.10/"], check=False)
    assert past.returncode in (7, 28), past


@pytest.fixture
def container(laptop: Host) -> Iterator[list[str]]:
    """A network namespace behind the laptop, as containers have; what runs a command in it."""
    steps = [
        "ip netns add box",
        "ip link add box0 type veth peer name eth0 netns box",
        "ip addr add 172.30.0.1/24 dev box0",
        "ip link set box0 up",
        "ip -n box addr add 172.30.0.2/24 dev eth0",
        "ip -n box link set eth0 up",
        "ip -n box link set lo up",
        "ip -n box route add default via 172.30.0.1",
        "sysctl -qw net.ipv4.ip_forward=1",
    ]
    try:
        for step in steps:
            laptop.run(step.split())
        yield ["ip", "netns", "exec", "box"]
    finally:
        laptop.run(["sysctl", "-qw", "net.ipv4.ip_forward=0"], check=False)
        laptop.run(["ip", "netns", "del", "box"], check=False)
        laptop.run(["ip", "link", "del", "box0"], check=False)


def test_a_container_behind_the_laptop(laptop: Host, container: list[str]) -> None:
    """What the host forwards is captured like its own: by address, by the agent's resolver, and by ping."""
    assert laptop.run([*container, *CURL, "http://10.10.0.10/"]).stdout == PAGE
    resolver = json.loads(laptop.run(["warren", "agent", "status", "--json"]).stdout)["dns"]["resolver"]
    found = laptop.run([*container, "dig", "+short", f"@{resolver}", "payroll.internal"]).stdout.strip()
    assert laptop.run([*container, *CURL, f"http://{found}/"]).stdout == PAGE
    assert "2 received" in laptop.run([*container, "ping", "-c", "2", "-i", "0.2", "-W", "5", "10.10.0.10"]).stdout
