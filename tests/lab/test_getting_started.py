"""docs/getting-started.md, run as it is written: three bare hosts, ten commands, payroll.internal; upgrade; removal.

The commands are taken out of the document. Two programs are stand-ins (tests/lab/standins): pipx, since the hosts reach
no internet (it installs the same wheel, with the dependencies of the tests' own environment), and systemctl.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.apps import connected
from tests.lab.thread.test_flows import CURL
from tests.wheel import ROOT, build
from warren.lab import Lab, wait_until
from warren.lab.host import Host
from warren.lab.services import PAGE, Services, serve_ssh

DOCUMENT = (ROOT / "docs" / "getting-started.md").read_text()
HOSTS = {"rented": "edge", "home": "connector", "laptop": "laptop"}
PATH = "/root/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMPARED = ("/etc", "/var/lib", "/run", "/root")
STANDINS = (
    *("/run/units", "/run/systemd", "/run/sshd", "/etc/ssh-lab", "/root/bin", "/root/.bashrc", "/root/.ssh"),
    *("/root/.cache", "/var/lib/lab-files"),
)
"""What the test itself brings."""
SECONDS = 60.0


def commands(heading: str) -> list[tuple[str, str]]:
    """(host, command) of one section."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^    (rented|home|laptop)# (.+)$", section, re.MULTILINE)


def run(lab: Lab, host: str, command: str) -> str:
    environment = {"PATH": PATH, "PYTHONPATH": ""}
    where = lab[HOSTS[host]]
    return where.run(["bash", "-c", f"set -o pipefail; cd /root; {command}"], env=environment, timeout=SECONDS).stdout


def prepare(host: Host, wheel: Path) -> None:
    """The wheel, and the stand-ins in front of PATH, also for whoever comes by ssh."""
    for name in ("pipx", "systemctl"):
        call = f'PYTHONPATH={ROOT / "src"}:{ROOT} exec {sys.executable} -m tests.lab.standins.{name} "$@"'
        host.write(f"/root/bin/{name}", f"#!/bin/sh\n{call}\n", 0o755)
    host.write("/root/.bashrc", f"export PATH={PATH}\n")
    host.write(f"/root/{wheel.name}", wheel.read_bytes())
    host.run(["mkdir", "-p", "/run/systemd/system"])


def tree(host: Host) -> set[str]:
    """Every path below what is compared, but for the stand-ins'; of a file, its mode and content too."""
    found = host.run(["find", *COMPARED, "-xdev", "-printf", "%p %y %m\\n"]).stdout.splitlines()
    files = host.run(["find", *COMPARED, "-xdev", "-type", "f", "-size", "-1M", "-exec", "md5sum", "{}", "+"]).stdout
    return {line for line in [*found, *files.splitlines()] if not any(path in line for path in STANDINS)}


@pytest.fixture(scope="module")
def hosts(lab: Lab, services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    wheel = build(tmp_path_factory.mktemp("wheel"))
    assert wheel.name in DOCUMENT, "the document names another version"
    for name in HOSTS.values():
        prepare(lab[name], wheel)
    _, keys = serve_ssh(lab["edge"])
    for name in ("connector", "laptop"):
        keys.give_to(lab[name], "203.0.113.10")
    yield lab


@pytest.fixture(scope="module")
def before(hosts: Lab) -> dict[str, set[str]]:
    """The bare hosts."""
    for name in HOSTS.values():
        assert hosts[name].run(["bash", "-c", "command -v warren"], env={"PATH": PATH}, check=False).stdout == ""
    return {name: tree(hosts[name]) for name in HOSTS.values()}


def payroll(lab: Lab) -> str:
    return lab["laptop"].run([*CURL, "http://payroll.internal/"], check=False).stdout


@pytest.fixture(scope="module")
def working(hosts: Lab, before: dict[str, set[str]]) -> Lab:
    steps = commands("The ten commands")
    assert len(steps) <= 10
    for host, command in steps:
        run(hosts, host, command)
    return hosts


def test_ten_commands_lead_to_payroll(working: Lab) -> None:
    assert "http://payroll.internal/" in DOCUMENT
    wait_until(lambda: payroll(working) == PAGE, "payroll.internal", 20)
    for host in HOSTS.values():
        log = working[host].run(["bash", "-c", "cat /run/units/*.log"]).stdout
        assert "Traceback" not in log


def test_an_upgrade_keeps_open_flows_over_the_edges_restart(working: Lab) -> None:
    wait_until(lambda: payroll(working) == PAGE, "payroll.internal", 20)
    steps = commands("Upgrading")
    address = working["laptop"].run(["dig", "+short", "payroll.internal"]).stdout.strip()
    with connected(working["laptop"], address, 22) as app:
        assert app.recv(4) == b"SSH-"
        for host, command in [step for step in steps if step[0] == "rented"]:
            run(working, host, command)
        app.sendall(b"SSH-2.0-test\r\n")
        assert len(app.recv(1)) == 1
    for host, command in [step for step in steps if step[0] != "rented"]:
        run(working, host, command)
    wait_until(lambda: payroll(working) == PAGE, "payroll.internal after the upgrade", 30)


def test_removing_leaves_no_trace(working: Lab, before: dict[str, set[str]]) -> None:
    for host, command in commands("Removing it without a trace"):
        run(working, host, command)
    for name in HOSTS.values():
        after = tree(working[name])
        assert (sorted(after - before[name]), sorted(before[name] - after)) == ([], [])
        running = working[name].run(["ps", "-e", "-o", "args"]).stdout
        assert not re.search(r"warren\.(cli|agent|connector|edge)", running)
        assert "5150" not in working[name].run(["ip", "rule"]).stdout
