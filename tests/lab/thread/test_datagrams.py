"""UDP and ICMP through the tunnel, with real programs; and beside TCP that saturates the path."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.lab import apps
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process

ECHO_SERVER = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
sock.bind(("10.10.0.10", 7777))
print("answering", flush=True)
while True:
    data, source = sock.recvfrom(65535)
    for _ in range(3 if data == b"three" else 1):
        sock.sendto(data, source)
"""
ECHO = """
import json, socket, sys
found = {}
for size in map(int, sys.argv[1:]):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.connect(("10.10.0.10", 7777))
    sent = bytes(index % 251 for index in range(size))
    sock.send(sent)
    found[size] = sock.recv(65535) == sent
print(json.dumps(found))
"""
CLOSED = """
import errno, socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.connect(("10.10.0.10", 7778))
sock.send(b"anybody?")
try:
    sock.recv(100)
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
"""
STREAM = """
import json, socket, sys, threading, time
COUNT, EVERY = int(sys.argv[1]), float(sys.argv[2])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
sock.connect(("10.10.0.10", 7777))
sock.settimeout(5)
sent, back = {}, {}
def hear():
    while len(back) < COUNT:
        try:
            data = sock.recv(2000)
        except OSError:
            return
        back[int.from_bytes(data[:4], "big")] = time.monotonic()
listener = threading.Thread(target=hear)
listener.start()
begin = time.monotonic()
for number in range(COUNT):
    while time.monotonic() < begin + number * EVERY:
        time.sleep(EVERY / 4)
    sent[number] = time.monotonic()
    sock.send(number.to_bytes(4, "big") * 50)
listener.join()
trips = sorted(back[number] - sent[number] for number in back)
print(json.dumps({"lost": COUNT - len(back), "p50": trips[len(trips) // 2], "p99": trips[int(len(trips) * 0.99)]}))
"""


@pytest.fixture(scope="module")
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


@pytest.fixture(scope="module", autouse=True)
def echo_server(deployment: Deployment) -> Iterator[Process]:
    process = deployment.lab["payroll"].start([sys.executable, "-c", ECHO_SERVER])
    process.wait_for_output("answering")
    yield process
    process.stop()


def test_datagrams_of_every_size_come_back_whole(laptop: Host) -> None:
    sizes = ["1", "100", "1400", "1472", "3000", "9000", "60000"]
    assert json.loads(laptop.python(ECHO, *sizes).stdout) == dict.fromkeys(sizes, True)


def test_a_closed_port_is_refused(laptop: Host) -> None:
    assert laptop.python(CLOSED).stdout.strip() == "ECONNREFUSED"


def test_a_private_name_server_answers_over_udp(laptop: Host) -> None:
    answer = laptop.run(["dig", "+short", "@10.10.0.53", "payroll.internal"]).stdout
    assert answer.strip() == "10.10.0.10"


def test_the_origin_may_send_more_than_it_was_asked(laptop: Host) -> None:
    source = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); "
        "s.connect(('10.10.0.10', 7777)); s.send(b'three'); print([s.recv(100) for _ in range(3)])"
    )
    assert laptop.python(source).stdout.count("three") == 3


def test_the_mtu_follows_the_room_for_a_datagram(laptop: Host) -> None:
    laptop.python(ECHO, "100")
    link = json.loads(laptop.run(["ip", "-j", "link", "show", "warren0"]).stdout)[0]
    assert 1280 <= link["mtu"] < 1472


def test_ping_by_name_and_address(laptop: Host) -> None:
    for target in ("payroll.internal", "10.10.0.10"):
        said = laptop.run(["ping", "-c", "3", "-i", "0.2", "-W", "5", target]).stdout
        assert "3 received" in said


def test_ping_is_told_what_is_unreachable(laptop: Host) -> None:
    done = laptop.run(["ping", "-c", "1", "-W", "5", "10.10.66.1"], check=False)
    assert done.returncode == 1 and "From 10.10.0.1 icmp_seq=1 Destination Host Unreachable" in done.stdout


def test_traceroute_shows_the_hops(laptop: Host) -> None:
    said = laptop.run(["traceroute", "-I", "-n", "-w", "3", "-q", "1", "10.10.0.10"]).stdout.splitlines()[1:]
    assert [line.split()[1] for line in said] == ["100.80.0.2", "10.10.0.10"]


def test_status_shows_udp_flows(deployment: Deployment, laptop: Host) -> None:
    laptop.python(ECHO, "10")
    flows = [flow for flow in deployment.status()["flows"] if flow["destination"] == "10.10.0.10:7777/udp"]
    assert flows and flows[0]["state"] == "open" and flows[0]["tunnel"] == "office"


LONG = ("10000", "0.001")
"""1,000 datagrams a second for ten seconds."""


def test_nothing_is_lost_beside_tcp_that_saturates_the_path(laptop: Host) -> None:
    with laptop.start(["iperf3", "-c", "10.10.0.10", "-t", "30"]) as load:
        said = json.loads(laptop.python(STREAM, *LONG, timeout=60).stdout)
        assert load.running
    assert said["lost"] == 0, said


def test_nothing_is_lost_while_the_credit_of_a_tcp_flow_is_used_up(deployment: Deployment, laptop: Host) -> None:
    """Both ways: an app that never reads, and an origin that never does."""
    payroll, over = deployment.lab["payroll"], threading.Event()

    def pour(sock: socket.socket) -> None:
        sock.settimeout(1.0)
        with suppress(OSError):  # it stands still
            while True:
                sock.sendall(bytes(1 << 20))
        over.wait(apps.PATIENCE * 2)

    def never_read(sock: socket.socket) -> None:
        over.wait(apps.PATIENCE * 2)

    with ExitStack() as stack:
        stack.callback(over.set)
        down = stack.enter_context(apps.origin(payroll, pour))
        up = stack.enter_context(apps.origin(payroll, never_read))
        stack.callback(over.set)
        stack.enter_context(apps.connected(laptop, payroll.address, down))
        pour_up = stack.enter_context(apps.connected(laptop, payroll.address, up))
        pour_up.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while True:
                pour_up.sendall(bytes(1 << 20))
        said = json.loads(laptop.python(STREAM, *LONG, timeout=60).stdout)
    assert said["lost"] == 0, said
