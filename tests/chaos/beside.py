"""python -m tests.chaos.beside [--rounds 3] [--only warren,openvpn] [--write]        (as root, some ten minutes)

What one ssh session does through Warren, OpenVPN, nebula with a relay, and a chain of `ssh -R` and `ssh -L`, when what
stands in the middle is killed and started again: all in the same lab, with the set-ups of tests/bench/peers.
`tools/bootstrap.sh bench` installs the others. --write: into docs/chaos-beside.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.figures import NONE, table
from tests.bench.machine import machine
from tests.bench.peers import Missing, Peer, WarrenNative
from tests.bench.peers.nebula import NebulaRelay
from tests.bench.peers.openvpn import UP, OpenVpn
from tests.bench.peers.programs import debian
from tests.bench.settings import tell
from tests.chaos.programs import SSH_OPTIONS, Shell
from tests.chaos.progress import Window
from warren.lab import OFFICE, Lab, Topology, breaking, wait_until
from warren.lab.services import serve_ssh, start_services

DOCS = Path(__file__).resolve().parents[2] / "docs"
AWAY = 2.0
"""Seconds from the kill to the start."""
WATCHED = 150.0
"""Seconds in which a session goes on, or another one opens; after them it hangs."""
READY = 60.0
HUB, GATEWAY, FORWARDED, NEAR = "203.0.113.10", 2200, 2222, 2022
QUIET = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
STAYS = ["-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]


class SshForward(Peer):
    """The site dials out (`ssh -R`), the laptop reaches that port (`ssh -L`); each in a loop, as autossh has it."""

    name = "ssh -L"
    path = "a port forwarded twice, through sshd at the hub"
    udp = False

    @property
    def version(self) -> str:
        return debian("openssh-client", "ssh").version

    def up(self) -> None:
        _, keys = serve_ssh(self.hub)
        self.serve()
        payroll = self.lab["payroll"].address
        there = f"-R 127.0.0.1:{FORWARDED}:{payroll}:22"
        near = f"-L 127.0.0.1:{NEAR}:127.0.0.1:{FORWARDED}"
        for host, forward, log in ((self.site, there, "site-ssh"), (self.laptop, near, "laptop-ssh")):
            host.write("/root/hub.key", keys.private, 0o600)
            words = ["ssh", "-i", "/root/hub.key", *QUIET, *STAYS, "-N", forward, "-p", str(GATEWAY), f"root@{HUB}"]
            host.start(["sh", "-c", f"while :; do {' '.join(words)}; sleep 1; done"], log=log)
        self.hub.wait_for_listener(FORWARDED, timeout=READY)
        self.laptop.wait_for_listener(NEAR, timeout=READY)

    def serve(self) -> None:
        words = ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh-lab/config", "-p", str(GATEWAY)]
        process = self.hub.start([*words, "-o", "ListenAddress=0.0.0.0"], log="gateway-sshd")
        self.hub.wait_for_listener(GATEWAY, process, timeout=READY)

    def restart(self, away: float) -> None:
        """Its sessions are processes of their own, which a host that goes down takes with it."""
        breaking.kill(self.hub, "sshd")
        time.sleep(away)
        self.serve()


class Middle:
    """One peer whose middle can be killed and started again, and the session through it."""

    def __init__(self, peer: Peer, pattern: str) -> None:
        """`pattern`: what the program in the middle prints when it is ready."""
        self.peer, self.pattern = peer, pattern

    def restart(self) -> None:
        peer = self.peer
        if isinstance(peer, SshForward):
            peer.restart(AWAY)
            return
        if isinstance(peer, WarrenNative):
            process = peer.deployed.daemons["edge"]
        else:
            (process,) = peer.processes["hub"]
        process.kill()
        time.sleep(AWAY)
        if isinstance(peer, WarrenNative):
            again = peer.deployed.start("edge", peer.hub, *process.argv[1:])
        else:
            again = peer.hub.start(process.argv, log=process.log)
            peer.processes["hub"] = [again]
        again.wait_for_output(self.pattern, READY)


MIDDLES: dict[type[Peer], str] = {
    WarrenNative: "edge runs",
    OpenVpn: UP,
    NebulaRelay: "Nebula interface is active",
    SshForward: "",
}


def topology() -> Topology:
    """The office with an ssh server only."""
    hosts = [replace(host, services=("ssh",) if host.name == "payroll" else ()) for host in OFFICE.hosts]
    return replace(OFFICE, hosts=tuple(hosts))


def session(peer: Peer, keys: Any) -> Shell:
    laptop, payroll = peer.laptop, peer.lab["payroll"]
    keys.give_to(laptop, payroll.address, f"[127.0.0.1]:{NEAR}")
    shell = Shell(laptop, payroll)
    if isinstance(peer, SshForward):
        shell.argv = ["ssh", "-T", *SSH_OPTIONS, "-p", str(NEAR), "root@127.0.0.1", "cat"]
    return shell


def event(middle: Middle, shell: Shell) -> dict[str, Any]:
    """`stall`: seconds without an answer, of a session that lived; `lost`; `again`: from the kill until some session
    answers; `away`: until the middle is ready."""
    track = shell.track
    began = time.monotonic()
    lost = len(track.lost)
    middle.restart()
    back = time.monotonic()
    while not (went_on := track.went_on_since(back)) and time.monotonic() - began < WATCHED:
        time.sleep(0.05)
    time.sleep(1.0)
    now = time.monotonic()
    answered = [at for at, _ in track.marks if at > back]
    hangs = not went_on
    return {
        "away": round(back - began, 2),
        "lost": len(track.lost) > lost,
        "why": [why for _, why in track.lost[lost:]],
        "hangs": hangs,
        "stall": track.says(Window(began, back, now))["stall"] if len(track.lost) == lost else None,
        "after": None if hangs else round(answered[0] - back, 2),
    }


def going(shell: Shell) -> None:
    """Until the session goes on; another one is opened where it hangs for good."""
    since = time.monotonic() + 1.0
    try:
        wait_until(lambda: shell.track.went_on_since(since), "the session", WATCHED)
    except TimeoutError:
        shell.again.set()
        wait_until(lambda: shell.track.went_on_since(since), "another session", WATCHED)


def measure(kind: type[Peer], rounds: int) -> dict[str, Any]:
    """The events of one peer, in a lab of its own."""
    with Lab(topology()) as lab:
        peer = kind(lab)
        said: dict[str, Any] = {"name": peer.name, "path": peer.path, "events": []}
        try:
            said["version"] = peer.version
            keys = start_services(lab).ssh
            peer.up()
        except Missing as missing:
            return {**said, "missing": str(missing)}
        shell = session(peer, keys)
        shell.start()
        try:
            for number in range(rounds):
                going(shell)
                one = event(Middle(peer, MIDDLES[kind]), shell)
                said["events"].append(one)
                tell(f"{peer.name}, {number + 1} of {rounds}: {one}")
        finally:
            shell.stop()
    return said


def page(found: list[dict[str, Any]], its: dict[str, Any], load: tuple[float, float]) -> str:
    head = ["", "version", "server away, s", "session lost", "stall of a session that lived, s", "answers again, s"]
    rows = [row(one) for one in found if one["events"]]
    missing = [f"* {one['name']}: not tried ({one['missing']})" for one in found if "missing" in one]
    where = f"{its['cores']} cores, {its['processor']}, {its['kernel']}, Python {its['python']}"
    said = sorted({f"* {one['name']}: {why}" for one in found for e in one["events"] for why in e["why"]})
    return "\n".join(
        [
            f"""# An ssh session beside others

`python -m tests.chaos.beside --write` makes this page; no figure is typed by hand. In the lab an ssh session on the
laptop sends ten lines a second to a server in the private network, and each comes back. The program in the middle
(Warren's edge, the server of OpenVPN, nebula's lighthouse that relays, the sshd that ports are forwarded through) is
killed by SIGKILL and started again after {AWAY:g} s. *Server away*: from the kill until it says that it is ready.
*Answers again*: from then until the session goes on or, where it was lost, until another one that is opened again and
again has its first answer. Medians; in brackets the longest. The others run with the settings of `make bench`
(OpenVPN: keepalive 10 60). The two legs of `ssh -L` are in a loop that starts them again after a second.

{where}; load average at the beginning {load[0]:.1f}, at the end {load[1]:.1f}.
""",
            table(head, rows),
            *(["", *missing] if missing else []),
            *(["", "What lost sessions said:", "", *said] if said else []),
        ]
    ) + "\n"  # fmt: skip


def row(one: dict[str, Any]) -> list[str]:
    events = one["events"]
    lost, hangs = (sum(event[key] for event in events) for key in ("lost", "hangs"))
    return [
        f"**{one['name']}** ({one['path']})",
        one["version"],
        middle([event["away"] for event in events]),
        f"{lost} of {len(events)}" + (f", {hangs} hung for {WATCHED:g} s" if hangs else ""),
        middle([event["stall"] for event in events]),
        middle([event["after"] for event in events]),
    ]


def middle(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.1f} ({max(known):.1f})" if known else NONE


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.beside", description="One ssh session, beside others.")
    parser.add_argument("--rounds", type=int, default=3, help="restarts of each [3]")
    parser.add_argument("--only", default="", help="beginnings of names, with commas between")
    parser.add_argument("--write", action="store_true", help="into docs/chaos-beside.md")
    asked = parser.parse_args(words)
    only = tuple(name.lower() for name in asked.only.split(",") if name)
    before = os.getloadavg()[0]
    found = [measure(kind, asked.rounds) for kind in MIDDLES if not only or kind.name.lower().startswith(only)]
    text = page(found, machine(), (before, os.getloadavg()[0]))
    print(text)
    if asked.write:
        (DOCS / "chaos-beside.md").write_text(text)
    warren = next((one for one in found if one["name"] == WarrenNative.name), None)
    return 1 if warren is not None and any(event["lost"] or event["hangs"] for event in warren["events"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
