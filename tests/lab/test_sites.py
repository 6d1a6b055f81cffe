"""Two sites with the same addresses, topologies from files, and the servers that a topology names."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.apps import connect
from warren.lab import TWO_SITES, Lab, Topology
from warren.lab.host import Host
from warren.lab.services import ECHO_PORT, PAGE, Services

SMALL = """
name: small
networks: {line: }
hosts:
  near: {cards: [{network: line, address: 192.0.2.1/30}]}
  far: {cards: [{network: line, address: 192.0.2.2/30}], services: [echo]}
"""


@pytest.fixture(scope="module")
def topology() -> Topology:
    return TWO_SITES


def fetched(host: Host) -> str:
    return host.run(["curl", "-sS", "--max-time", "5", "http://payroll.internal/"]).stdout


def test_each_site_has_its_own_payroll_at_one_address(lab: Lab, services: Services) -> None:
    assert fetched(lab["connector"]) == PAGE
    assert fetched(lab["branch-connector"]) == f"branch-payroll: {PAGE}"
    for connector in ("connector", "branch-connector"):
        assert lab[connector].run(["dig", "+short", "payroll.internal"]).stdout == "10.10.0.10\n"
    assert lab["branch-connector"].run(["dig", "+short", "db.internal"]).stdout == ""


def test_both_sites_are_behind_a_nat_of_their_own(lab: Lab, services: Services) -> None:
    with lab["edge"].network(), socket.create_server(("203.0.113.10", 0)) as server:
        seen = []
        for connector in ("connector", "branch-connector"):
            assert connect(lab[connector], *server.getsockname()).error == ""
            accepted, source = server.accept()
            accepted.close()
            seen.append(source[0])
    assert seen == ["198.51.100.2", "198.51.100.6"]
    for address in ("10.10.0.10", "198.51.100.6"):
        refused = lab["laptop"].run(["curl", "-sS", "--max-time", "1", f"http://{address}/"], check=False)
        assert refused.returncode in (7, 28)


def test_datagrams_are_echoed(lab: Lab, services: Services) -> None:
    for name in ("connector", "branch-connector"):
        with lab[name].network(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect(("10.10.0.10", ECHO_PORT))
            for size in (0, 1, 1400, 20_000):
                client.send(bytes(size))
                assert client.recv(65536) == bytes(size)


def test_a_lab_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)

    def command(*words: str) -> str:
        argv = [sys.executable, "-m", "warren.lab", *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    name = "lab-from-a-file"
    try:
        assert "2 hosts" in command("up", "--topology", str(file), "--services", "--name", name)
        file.unlink()  # what is up needs it no more
        assert "small" in command("status", "--name", name)
        lab = Lab.attach(name)
        assert connect(lab["near"], "192.0.2.2", ECHO_PORT).error == ""
    finally:
        command("down", "--name", name)
    assert "there is ipv6, office, two-sites, or name a YAML file" in command("up", "--topology", "offce")
    assert command("up", "--topology", str(file)) == f"lab: topology {file} cannot be read: No such file or directory\n"
