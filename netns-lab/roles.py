"""Warren's own programs in a lab's hosts, with the commands that an administrator and a user type.

Secrets travel between hosts as an administrator would carry them: as files of mode 0600, never in a command line.
"""

from __future__ import annotations

from warren.lab.host import Host
from warren.lab.lab import Lab
from warren.lab.process import Process

EDGE_PORT = 443
TOKEN_FILE = "/root/office.token"  # where it is, not what it is
ENROLMENT_KEY_FILE = "/root/laptop.key"


def start_edge(edge: Host) -> Process:
    """`warren edge init` and `run`; returns when it takes attachments."""
    here = f"{edge.address}:{EDGE_PORT}"
    edge.run(["warren", "edge", "init", "--listen", here, "--public-address", here])
    process = edge.start(["warren", "edge", "run"], log="edge")
    process.wait_for_output("ready", timeout=30)
    return process


def create_tunnel(edge: Host, name: str = "office") -> None:
    """The tunnel, its token in TOKEN_FILE, and its two routes: the office's networks, and one name."""
    edge.run(["warren", "tunnel", "create", name, "--token-file", TOKEN_FILE])
    edge.run(["warren", "route", "ip", "add", "10.10.0.0/16", "--tunnel", name])
    edge.run(["warren", "route", "host", "add", "payroll.internal", "--tunnel", name])
    edge.run(["warren", "route", "host", "add", "db.internal", "--tunnel", name])


def start_connector(connector: Host, edge: Host) -> Process:
    """Carries the token over and runs the connector; returns when it is attached."""
    connector.write(TOKEN_FILE, edge.read(TOKEN_FILE), 0o600)
    process = connector.start(["warren", "connector", "run", "--token-file", TOKEN_FILE], log="connector")
    process.wait_for_output("ready", timeout=30)
    return process


def enrol(laptop: Host, edge: Host, name: str = "laptop") -> None:
    """Adds the device, carries its enrolment key over and enrols."""
    edge.run(["warren", "device", "add", name, "--key-file", ENROLMENT_KEY_FILE])
    laptop.write(ENROLMENT_KEY_FILE, edge.read(ENROLMENT_KEY_FILE), 0o600)
    laptop.run(["warren", "agent", "enrol", "--key-file", ENROLMENT_KEY_FILE])


def start_agent(laptop: Host) -> Process:
    """Returns when the agent's routes and resolver are in place."""
    process = laptop.start(["warren", "agent", "up"], log="agent")
    process.wait_for_output("ready", timeout=30)
    return process


def start_warren(lab: Lab) -> dict[str, Process]:
    """All three, wired together: what most tests of the whole path begin with."""
    edge = start_edge(lab["edge"])
    create_tunnel(lab["edge"])
    connector = start_connector(lab["connector"], lab["edge"])
    enrol(lab["laptop"], lab["edge"])
    return {"edge": edge, "connector": connector, "agent": start_agent(lab["laptop"])}
