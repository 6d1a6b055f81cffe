"""The agent leaves the host as it found it, however it ends; and what it takes from the host is what was asked for."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.lab import apps
from tests.lab.thread.test_flows import CURL
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import PAGE

COMMANDS = (
    "ip -j route show table all",
    "ip -j rule",
    "ip -j addr",
    "nft list ruleset",
    "cat /etc/resolv.conf",
    "ip netns list",
    "ps -e -o comm",
)


def state(host: Host) -> dict[str, str]:
    """All that an agent may change, and the processes."""
    return {command: host.run(command.split()).stdout for command in COMMANDS}


def changes(host: Host, before: dict[str, str]) -> dict[str, tuple[str, str]]:
    """What is not as it was: before, now."""
    now = state(host)
    return {command: (said, now[command]) for command, said in before.items() if now[command] != said}


def wait_until_as_it_was(host: Host, before: dict[str, str]) -> None:
    """The guardian may have work to do."""
    try:
        wait_until(lambda: not changes(host, before), "the laptop as it was", 5)
    except TimeoutError:
        assert changes(host, before) == {}


@pytest.fixture(scope="module")
def before(deployment: Deployment) -> Iterator[dict[str, str]]:
    """The laptop without an agent."""
    deployment.warren(deployment.laptop, "agent", "down")
    deployment.daemons["agent"].wait()
    found = state(deployment.laptop)
    assert "warren" not in "".join(found.values())
    yield found
    deployment.run_agent()


@pytest.fixture
def running(deployment: Deployment, before: dict[str, str]) -> Iterator[Deployment]:
    """With an agent, which each test ends in its own way."""
    deployment.run_agent()
    assert changes(deployment.laptop, before)
    yield deployment
    deployment.daemons["agent"].stop()


def end_by_kill(deployment: Deployment) -> None:
    deployment.daemons["agent"].kill()


def end_by_term(deployment: Deployment) -> None:
    deployment.daemons["agent"].signal(signal.SIGTERM)
    assert deployment.daemons["agent"].wait() == 0


def end_by_interrupt(deployment: Deployment) -> None:
    deployment.daemons["agent"].signal(signal.SIGINT)
    assert deployment.daemons["agent"].wait() in (0, 130)


def end_by_down(deployment: Deployment) -> None:
    deployment.warren(deployment.laptop, "agent", "down")
    assert deployment.daemons["agent"].wait() == 0


ENDS = [end_by_kill, end_by_term, end_by_interrupt, end_by_down]


@pytest.mark.parametrize("end", ENDS)
def test_nothing_stays_when_the_agent_ends(
    running: Deployment, before: dict[str, str], end: Callable[[Deployment], None]
) -> None:
    with apps.connected(running.laptop, "10.10.0.10", 80):
        end(running)
        wait_until_as_it_was(running.laptop, before)


def test_after_a_kill_the_agent_comes_up_again(running: Deployment, before: dict[str, str]) -> None:
    running.daemons["agent"].kill()
    running.run_agent()
    assert running.laptop.run([*CURL, "http://payroll.internal/"]).stdout == PAGE
    end_by_down(running)
    wait_until_as_it_was(running.laptop, before)


def test_open_flows_are_reset_when_the_agent_stops(running: Deployment) -> None:
    with apps.connected(running.laptop, "10.10.0.10", 22) as client:
        assert client.recv(4) == b"SSH-"
        end_by_term(running)
        client.settimeout(5)
        assert apps.read_until_error(client)[1] in ("ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT")


# --- split tunnel


def test_include_takes_only_what_it_names(deployment: Deployment, before: dict[str, str]) -> None:
    deployment.run_agent("--include", "10.10.0.0/28", "--include", "172.16.0.0/12")
    try:
        assert deployment.status()["routes"]["installed"] == ["10.10.0.0/28"]
        assert deployment.laptop.run([*CURL, "http://10.10.0.10/"]).stdout == PAGE
        route = json.loads(deployment.laptop.run(["ip", "-j", "route", "get", "10.10.0.20"]).stdout)
        assert route[0]["dev"] == "eth0"
    finally:
        end_by_down(deployment)
    wait_until_as_it_was(deployment.laptop, before)


@pytest.mark.parametrize("local", ["10.10.5.1/24", "10.0.0.1/8"], ids=["inside", "around"])
def test_what_the_local_network_also_has_is_suspended_and_shown(running: Deployment, local: str) -> None:
    laptop = running.laptop
    laptop.run(["ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1"])
    try:
        laptop.run(["ip", "addr", "add", local, "dev", "cable0"])
        laptop.run(["ip", "link", "set", "cable0", "up"])
        laptop.run(["ip", "link", "set", "cable1", "up"])
        suspended = wait_until(lambda: running.status()["routes"]["suspended"], "the suspended route")
        assert ("10.10.0.0/16", "cable0") in [(each["route"], each["interface"]) for each in suspended]
        assert "cable0" in running.laptop.run(["warren", "agent", "status"]).stdout
        route = json.loads(laptop.run(["ip", "-j", "route", "get", "10.10.5.7"]).stdout)
        assert route[0]["dev"] == "cable0"
    finally:
        laptop.run(["ip", "link", "del", "cable0"])
    wait_until(lambda: not running.status()["routes"]["suspended"], "the route, which is whole again")
    assert laptop.run([*CURL, "http://10.10.0.10/"]).stdout == PAGE
