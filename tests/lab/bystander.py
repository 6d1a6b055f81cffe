"""Who must not notice: a flow beside an attack that goes on byte for byte, and daemons that stay what they were."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.lab import apps
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import ECHO_PORT

MIB = 1 << 20
GROWTH = 48 * MIB
"""Bytes that a daemon may grow by under one kind of attack (a peer connection's window is not the limit, credit is)."""
ETH_P_ALL = 3


@contextmanager
def bystander(deployment: Deployment) -> Iterator[None]:
    """A flow of the laptop's that goes on, byte for byte, and a daemon that stays what it was."""
    over, rounds, faults = threading.Event(), [0], list[str]()
    pids = {role: process.pid for role, process in deployment.daemons.items()}
    before = {role: apps.resident(pid) for role, pid in pids.items()}
    client = apps.connected(deployment.laptop, "10.10.0.10", ECHO_PORT)

    def go_on() -> None:
        try:
            while not over.is_set():
                data = apps.pattern(20_000, rounds[0])
                client.sendall(data)
                back = b""
                while len(back) < len(data):
                    back += client.recv(65536) or (_ for _ in ()).throw(EOFError())
                if back != data:
                    faults.append(f"round {rounds[0]} came back changed")
                rounds[0] += 1
        except (OSError, EOFError) as error:
            faults.append(f"round {rounds[0]}: {error!r}")

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        wait_until(lambda: rounds[0], "the first round")
        yield
        seen = rounds[0]
        wait_until(lambda: faults or rounds[0] > seen + 3, "more rounds after the attack")
    finally:
        over.set()
        thread.join(apps.PATIENCE)
        client.close()
    assert not faults
    assert all(process.running and process.pid == pids[role] for role, process in deployment.daemons.items())
    grown = {role: apps.resident(pid) - before[role] for role, pid in pids.items()}
    assert max(grown.values()) < GROWTH, grown


@contextmanager
def sniffed(host: Host) -> Iterator[list[bytes]]:
    """The IP packets that pass a host, each once or twice."""
    found = list[bytes]()
    with host.network():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
    sock.settimeout(0.2)
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                found.append(sock.recv(65536))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join(apps.PATIENCE)
        sock.close()
