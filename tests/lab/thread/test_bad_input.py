"""Wrong input: one line that says what to do, an exit code that is not 0, nothing left behind."""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path

import pytest

from tests.unit.fabric.identity.world import World
from warren.fabric.identity import keys, statements, tokens
from warren.lab.deployment import Deployment
from warren.lab.host import Host

TOKEN = "/root/office.token"


def refused(host: Host, *words: str, says: str, stdin: str | None = None, user: str | None = None) -> int:
    """Runs `warren WORDS`, which must fail with one line that matches `says`; its exit code."""
    done = host.run(["warren", *words], check=False, input=stdin, user=user)
    assert done.returncode in (1, 2), done
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("warren: "), done
    assert re.search(says, done.stderr), done.stderr
    assert done.stdout == ""
    return done.returncode


def state(host: Host) -> dict[str, str]:
    commands = ("ip -j route show table all", "ip -j rule", "ip -j addr", "cat /etc/resolv.conf", "ps -e -o comm",
                "ip netns list")  # fmt: skip
    return {command: host.run(command.split()).stdout for command in commands}


@pytest.fixture
def site(deployment: Deployment) -> Host:
    return deployment.connector


@pytest.fixture
def stranger(deployment: Deployment) -> Host:
    """A host of the site that has nothing of Warren's."""
    return deployment.lab["db"]


# --- tokens


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        ("rubbish\n", 0o600, "token"),
        ("", 0o600, "empty"),
        ("\x00\x01", 0o600, "token"),
        (None, 0o644, "chmod 600"),
        (None, 0o640, "chmod 600"),
    ],
    ids=["rubbish", "empty", "binary", "others", "group"],
)
def test_a_bad_token_file(site: Host, content: str | None, mode: int, says: str) -> None:
    site.write("/root/bad.token", site.read(TOKEN) if content is None else content, mode)
    refused(site, "connector", "run", "--token-file", "/root/bad.token", says=says)


def test_a_truncated_token(site: Host) -> None:
    site.write("/root/bad.token", site.read(TOKEN).strip()[:-20], 0o600)
    refused(site, "connector", "run", "--token-file", "/root/bad.token", says="cut short")
    refused(site, "connector", "run", "--token-file", "-", stdin=site.read(TOKEN)[:500], says="cut short")


def test_a_token_file_that_is_not_there(site: Host) -> None:
    refused(site, "connector", "run", "--token-file", "/root/nothing", says="/root/nothing can't be read")


def test_no_token_at_all(site: Host) -> None:
    refused(site, "connector", "run", says="--token-file")


def test_an_enrolment_key_is_no_token(deployment: Deployment, site: Host) -> None:
    site.write("/root/bad.token", deployment.laptop.read("/root/laptop.key"), 0o600)
    refused(site, "connector", "run", "--token-file", "/root/bad.token", says="token")


def test_a_token_in_the_command_line_is_not_taken(site: Host) -> None:
    refused(site, "connector", "run", "--token", "secret", says="No such option")


# --- enrolment


def other_key(deployment: Deployment, host: str = "") -> str:
    """An enrolment key of another network, whose edge is said to be at this one's address, or at `host`."""
    token = tokens.parse_tunnel_token(deployment.connector.read(TOKEN).strip())
    (edge,) = token.edges().edges
    other = World()
    edges = statements.EdgeList(1, (statements.Edge(other.edge, host or edge.host, edge.port, "other"),))
    signed = statements.sign_edges(other.network_key, edges)
    return str(tokens.EnrolmentKey(other.network, signed, tokens.new_secret(), 2**32))


def test_an_enrolment_key_of_another_network(deployment: Deployment, stranger: Host) -> None:
    key = other_key(deployment)
    refused(stranger, "agent", "enrol", "--key-file", "-", stdin=key, says="not of this network|certificate")
    assert not stranger.path("/var/lib/warren").exists()


def test_an_edge_that_does_not_answer(deployment: Deployment, stranger: Host) -> None:
    key = other_key(deployment, "203.0.113.77")
    refused(stranger, "agent", "enrol", "--key-file", "-", stdin=key, says="no edge answers.*UDP")
    assert not stranger.path("/var/lib/warren").exists()


def test_an_edge_whose_name_is_not_known(deployment: Deployment, stranger: Host) -> None:
    key = other_key(deployment, "edge.nowhere.example")
    refused(stranger, "agent", "enrol", "--key-file", "-", stdin=key, says=r"edge\.nowhere\.example")


def test_an_enrolment_key_works_once(deployment: Deployment, stranger: Host) -> None:
    key = deployment.laptop.read("/root/laptop.key")
    refused(stranger, "agent", "enrol", "--key-file", "-", stdin=key, says="used already")
    assert not stranger.path("/var/lib/warren/agent/device.json").exists()


def test_a_bad_enrolment_key(stranger: Host) -> None:
    refused(stranger, "agent", "enrol", "--key-file", "-", stdin="rubbish\n", says="key")
    refused(stranger, "agent", "enrol", "--key-file", "/root/nothing", says="/root/nothing")


# --- the command line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("agent", "up", "--frobnicate"), "No such option"),
        (("agent", "up", "--include", "10.10.0.0/99"), "--include 10.10.0.0/99"),
        (("agent", "up", "--include", "10.10.0.1/16"), "--include 10.10.0.1/16"),
        (("connector", "run", "--token-file", TOKEN, "--engine", "none"), "engine"),
        (("agent", "up", "--log-level", "loud"), "--log-level loud"),
        (("connector", "run", "--token-file", TOKEN, "--allow", "10.0.0.0/40"), "--allow 10.0.0.0/40"),
        (("connector", "run", "--token-file", TOKEN, "--allow", "10.0.0.0/8:0"), "--allow 10.0.0.0/8:0"),
        (("connector", "walk"), "No such command"),
        (("route", "ip", "add", "10.10.0.0/99", "--tunnel", "office"), "is no CIDR"),
        (("route", "ip", "add", "10.10.0.1/16", "--tunnel", "office"), "10.10.0.0/16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_command_line(site: Host, words: tuple[str, ...], says: str) -> None:
    assert refused(site, *words, says=says) == 2


def test_what_the_edge_refuses(deployment: Deployment) -> None:
    edge = deployment.edge
    refused(edge, "route", "ip", "add", "10.12.0.0/16", "--tunnel", "nowhere", says="nowhere")
    refused(edge, "route", "host", "add", "not a name", "--tunnel", "office", says="name")
    refused(edge, "tunnel", "create", "office", "--token-file", "/root/second.token", says="office")
    assert not edge.path("/root/second.token").exists()
    refused(edge, "device", "delete", "nobody", says="nobody")
    refused(edge, "edge", "init", "--public", "203.0.113.10", says="already")


def test_an_admin_command_away_from_the_edge(stranger: Host) -> None:
    refused(stranger, "route", "list", says="edge")


# --- what is in use or not allowed


def test_the_edge_twice(deployment: Deployment) -> None:
    refused(deployment.edge, "edge", "run", says="runs|use")
    assert deployment.daemons["edge"].running
    deployment.warren(deployment.edge, "tunnel", "list")


def test_an_edge_that_was_not_initialised(stranger: Host) -> None:
    refused(stranger, "edge", "run", says="edge init")


def test_a_port_in_use(deployment: Deployment) -> None:
    other = deployment.lab["internet"]
    deployment.warren(other, "edge", "init", "--public", "203.0.113.1", "--port", "4999")
    with other.network(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 4999))
        refused(other, "edge", "run", says="4999")
    assert not other.path("/run/warren/edge.sock").exists()


def test_the_agent_twice(deployment: Deployment) -> None:
    before = state(deployment.laptop)
    refused(deployment.laptop, "agent", "up", says="runs already")
    assert state(deployment.laptop) == before
    assert deployment.daemons["agent"].running and deployment.status()


def test_an_agent_that_is_not_enrolled(stranger: Host) -> None:
    refused(stranger, "agent", "up", says="warren agent enrol")


def test_no_agent_to_ask(stranger: Host) -> None:
    refused(stranger, "agent", "status", says="warren agent up")
    refused(stranger, "agent", "down", says="warren agent up")


def test_an_agent_without_root(deployment: Deployment) -> None:
    refused(deployment.laptop, "agent", "up", user="daemon", says="root")
    refused(deployment.laptop, "agent", "status", user="daemon", says="root")


@pytest.fixture(scope="module")
def second(deployment: Deployment) -> Host:
    """Another enrolled device."""
    host = deployment.lab["nameserver"]
    deployment.enrol(host, f"second-{secrets.token_hex(2)}")
    return host


def test_no_tun_device(second: Host) -> None:
    before = state(second)
    hidden = "mount -t tmpfs none /dev/net && exec warren agent up"
    done = second.run(["unshare", "-m", "--propagation", "unchanged", "sh", "-c", hidden], check=False)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done
    assert "/dev/net/tun" in done.stderr
    assert state(second) == before


def test_no_permission_for_a_tun_device(second: Host) -> None:
    before = state(second)
    drop = ["setpriv", "--bounding-set=-net_admin,-sys_admin", "--inh-caps=-net_admin,-sys_admin"]
    done = second.run([*drop, "warren", "agent", "up"], check=False)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done
    assert "permi" in done.stderr.lower() or "CAP_NET_ADMIN" in done.stderr
    assert state(second) == before


def test_an_interface_name_that_is_taken(second: Host) -> None:
    before = state(second)
    refused(second, "agent", "up", "--interface", "eth0", says="eth0")
    refused(second, "agent", "up", "--interface", "much-too-long-a-name", says="interface|name")
    assert state(second) == before


def test_a_damaged_enrolment(second: Host) -> None:
    path = Path("/var/lib/warren/agent/edges")
    kept = second.path(path).read_bytes()
    try:
        second.write(path, kept[:-1], 0o600)
        refused(second, "agent", "up", says="damaged")
        second.write(path, World().signed_edges, 0o600)
        refused(second, "agent", "up", says="damaged")
    finally:
        second.write(path, kept, 0o600)
    assert keys.load(second.path("/var/lib/warren/agent/device.key"))
