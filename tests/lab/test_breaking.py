"""Hosts and programs that are changed while the lab is up, and changed back."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from tests.lab import apps
from warren.lab import Lab, LabError, breaking, wait_until

EDGE = "203.0.113.10"


def test_another_address_on_the_home_lan_and_back(lab: Lab) -> None:
    laptop = lab["laptop"]
    before = breaking.readdress(laptop, "192.168.77.23/24")
    assert before == "192.168.77.10/24"
    addresses = laptop.run(["ip", "-4", "-br", "addr", "show", "eth0"]).stdout
    assert "192.168.77.23/24" in addresses and "192.168.77.10" not in addresses
    with apps.origin(lab["edge"], apps.echo) as port, apps.connected(laptop, EDGE, port) as client:
        assert client.getsockname()[0] == "192.168.77.23"
    routes = laptop.run(["ip", "route"]).stdout
    assert "default via 192.168.77.1" in routes
    assert breaking.readdress(laptop, before) == "192.168.77.23/24"
    assert breaking.readdress(laptop, before) == before
    assert laptop.run(["ip", "route"]).stdout == routes.replace(".23", ".10")


@pytest.mark.parametrize(
    ("address", "told"), [("10.0.0.1/24", "not in 192.168.77.0/24"), ("home", "not an address with its prefix")]
)
def test_an_address_that_cannot_be_is_refused(lab: Lab, address: str, told: str) -> None:
    with pytest.raises(LabError, match=told):
        breaking.readdress(lab["laptop"], address)


def test_a_router_that_rebinds_gives_a_flow_another_port(lab: Lab) -> None:
    with lab["edge"].network():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab["laptop"].network():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind((EDGE, 0))
        server.settimeout(5)
        client.connect(server.getsockname())
        client.settimeout(5)
        seen = []
        for number in range(3):
            if number:
                breaking.rebind(lab["home"])
            client.send(b"hello")
            _, source = server.recvfrom(100)
            server.sendto(b"hello", source)
            assert client.recv(100) == b"hello"
            seen.append(source)
    assert {address for address, _ in seen} == {"192.0.2.2"}
    assert len({port for _, port in seen}) == 3
    with pytest.raises(LabError, match="no default route"):
        breaking.rebind(lab["internet"])


def test_a_frozen_program_stands_still_until_it_is_thawed(lab: Lab) -> None:
    counting = ["sh", "-c", "while :; do echo tick; sleep 0.02; done"]
    with lab["edge"].start(counting) as program:
        program.wait_for_output("tick")
        program.freeze()
        size = len(program.output())
        lab["edge"].run(["sleep", "0.2"])
        assert len(program.output()) == size
        program.thaw()
        wait_until(lambda: len(program.output()) > size, "more ticks")


def test_the_commands(lab: Lab) -> None:
    with Lab() as office:
        office.release()

        def command(*words: str) -> str:
            argv = [sys.executable, "-m", "warren.lab", *words, "--name", office.name]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
            return done.stdout + done.stderr

        program = office["edge"].start(["sleep", "1000"])
        assert f"processes {program.pid}" in command("freeze", "edge", "sleep 10")
        assert f"processes {program.pid}" in command("thaw", "edge", "sleep 10")
        assert "lab: no program on laptop matches" in command("kill", "laptop", "sleep 10")
        assert f"processes {program.pid}" in command("kill", "edge", "sleep 10")
        assert program.wait() == -signal.SIGKILL
        undo = command("address", "laptop", "192.168.77.23/24")
        assert undo == "undo: lab address laptop 192.168.77.10/24\n"
        assert command(*undo.split()[2:]) == "undo: lab address laptop 192.168.77.23/24\n"
        assert command("rebind", "home") == ""
        assert "there is laptop" in command("rebind", "hom")
