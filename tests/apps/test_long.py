"""The applications of tests/lab/thread/test_apps.py, larger and longer, and a real scanner."""

from __future__ import annotations

import re

import pytest

from tests.lab import apps
from tests.lab.thread.test_apps import DATABASE, LOGIN, PASSWORD, digest_of
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
