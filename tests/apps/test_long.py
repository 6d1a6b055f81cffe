"""The applications of tests/lab/thread/test_apps.py, larger and longer, a real scanner, and a path of 1,280 bytes."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.lab import apps
from tests.lab.thread.test_apps import DATABASE, LOGIN, PASSWORD, digest_of
from tests.lab.thread.test_datagrams import ECHO, ECHO_SERVER
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import ECHO_PORT, HTTP_PORT, SSH_PORT, Services

GIB = 1 << 30
CHUNK = 1 << 24


@pytest.fixture(scope="module")
def payroll(deployment: Deployment) -> Host:
    return deployment.lab["payroll"]


@pytest.fixture(scope="module")
def laptop(deployment: Deployment, services: Services) -> Host:
    services.ssh.give_to(deployment.laptop, "payroll.internal")
    return deployment.laptop


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_scp_of_a_gigabyte(laptop: Host, payroll: Host, up: bool) -> None:
    source, target = (laptop, payroll) if up else (payroll, laptop)
    with source.path("/tmp/sent").open("wb") as file:
        for seed in range(GIB // CHUNK):
            file.write(apps.pattern(CHUNK, seed))
    digest = digest_of(source, "/tmp/sent")
    words = ["/tmp/sent", "root@payroll.internal:/tmp/got"] if up else ["root@payroll.internal:/tmp/sent", "/tmp/got"]
    try:
        laptop.run(["scp", "-q", *words], timeout=900)
        assert digest_of(target, "/tmp/got") == digest
    finally:
        for host, path in ((source, "/tmp/sent"), (target, "/tmp/got")):
            host.path(path).unlink(missing_ok=True)


def test_pgbench_for_half_a_minute(laptop: Host) -> None:
    laptop.run(["pgbench", "-q", "-i", "-s", "5", *LOGIN, DATABASE], env=PASSWORD, timeout=300)
    said = laptop.run(["pgbench", "-c", "16", "-j", "2", "-T", "30", *LOGIN, DATABASE], env=PASSWORD, timeout=120)
    done = re.search(r"transactions actually processed: (\d+)", said.stdout)
    assert done is not None and int(done[1]) > 1000
    assert "number of failed transactions: 0 " in said.stdout


def test_nmap_shows_the_open_ports_only(laptop: Host, payroll: Host) -> None:
    said = laptop.run(["nmap", "-n", "-Pn", "-sT", "-p", "1-1000", payroll.address], timeout=300).stdout
    found = {int(port) for port in re.findall(r"^(\d+)/tcp\s+open ", said, re.MULTILINE)}
    assert found == {SSH_PORT, HTTP_PORT, ECHO_PORT}
    assert "997 closed tcp ports (conn-refused)" in said


def test_a_path_of_1280_bytes_whose_routers_say_nothing(deployment: Deployment, laptop: Host) -> None:
    """The home's line lets nothing larger pass any more, and no ICMP tells: datagrams of every size, and streams."""
    links, sizes = deployment.lab.links, ["100", "1200", "1400", "9000"]
    server = deployment.lab["payroll"].start([sys.executable, "-c", ECHO_SERVER])
    server.wait_for_output("answering")

    def all_come_back() -> bool:
        done = laptop.run([sys.executable, "-c", ECHO, *sizes], check=False)
        return done.returncode == 0 and json.loads(done.stdout) == dict.fromkeys(sizes, True)

    def mtu() -> int:
        (link,) = json.loads(laptop.run(["ip", "-j", "link", "show", "warren0"]).stdout)
        return int(link["mtu"])

    assert all_come_back()
    before = mtu()
    links.narrow("home-line", 1280)
    try:
        wait_until(all_come_back, "datagrams of every size over a narrow path", 60)
        got = laptop.run(["curl", "-sS", "--max-time", "30", "http://payroll.internal/"]).stdout
        assert got.startswith("Payroll") and mtu() >= 1280
        laptop.run(["ping", "-c", "1", "-W", "5", "-s", "1200", "10.10.0.10"])
    finally:
        links.mend("home-line")
    spare = ["192.168.77.77/32", "dev", "lo"]
    laptop.run(["ip", "addr", "add", *spare])  # a change of the network: the sizes are looked for anew
    try:
        wait_until(lambda: mtu() == before, "the MTU of before", 30)
    finally:
        laptop.run(["ip", "addr", "del", *spare])
        server.stop()
