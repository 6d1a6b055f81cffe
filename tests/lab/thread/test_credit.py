"""What readers that stand still cost: memory is bounded by credit, and nobody else notices (docs/memory.md)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.lab import apps
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host

MIB = 1 << 20
FLOWS = 8
OFFERED = 1024 * MIB
"""Bytes that each sender has for a reader that takes none of them."""
FAST = 4 * MIB
"""Bytes that each reader takes at full speed before it stops: enough for windows to grow as far as they do."""
NEVER_READ, STALLED = 16 * MIB, 128 * MIB
"""What a daemon may grow by for eight flows of either kind."""
STILL = 1.5
"""Seconds in which nothing more moves: then all that can be held is held."""
BLOCK = memoryview(bytes(MIB))


@pytest.fixture
def payroll(deployment: Deployment) -> Host:
    return deployment.lab["payroll"]


@pytest.fixture(autouse=True)
def nothing_stays(deployment: Deployment) -> Iterator[None]:
    yield
    wait_until(lambda: not sums(deployment)[0], "the end of all flows", 30)


def sums(deployment: Deployment) -> tuple[int, int, int]:
    """TCP flows that are open, and the bytes that they have sent and received."""
    flows = [
        flow for flow in deployment.status()["flows"] if flow["state"] != "ended" and "/" not in flow["destination"]
    ]
    return len(flows), sum(flow["sent"] for flow in flows), sum(flow["received"] for flow in flows)


def until_nothing_moves(deployment: Deployment) -> None:
    seen, since = sums(deployment), time.monotonic()

    def still() -> bool:
        nonlocal seen, since
        now = sums(deployment)
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > STILL

    wait_until(still, "the flows to stand still", 60)


def memory(deployment: Deployment) -> dict[str, int]:
    return {role: apps.resident(process.pid) for role, process in deployment.daemons.items()}


def pour(sock: socket.socket) -> None:
    """All that is offered, until the other side has gone."""
    sock.settimeout(None)
    with suppress(OSError):
        for _ in range(OFFERED // MIB):
            sock.sendall(BLOCK)


def reader(take: int, over: threading.Event) -> Callable[[socket.socket], None]:
    """Takes so many bytes, then none until it is over; what it leaves unread makes its end a reset."""

    def read(sock: socket.socket) -> None:
        left = take
        while left > 0:
            left -= len(sock.recv(min(left, MIB)))
        over.wait(apps.PATIENCE * 4)

    return read


@contextmanager
def standing(laptop: Host, payroll: Host, take: int) -> Iterator[None]:
    """Flows whose readers took `take` bytes and take no more: eight in which apps read, eight in which origins do."""
    over = threading.Event()
    read = reader(take, over)
    with ExitStack() as stack:
        threads = []
        for here, there in ((read, pour), (pour, read)):
            port = stack.enter_context(apps.origin(payroll, there))
            for _ in range(FLOWS):
                client = stack.enter_context(apps.connected(laptop, payroll.address, port))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, apps.RESET)
                stack.callback(shut, client)
                threads.append(threading.Thread(target=here, args=(client,), daemon=True))
                threads[-1].start()
        stack.callback(over.set)
        yield
    for thread in threads:
        thread.join(apps.PATIENCE)


def shut(sock: socket.socket) -> None:
    """Wakes the thread that writes to it; what was not read makes the end a reset."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(("take", "most"), [(0, NEVER_READ), (FAST, STALLED)], ids=["never-read", "fast-then-stall"])
def test_readers_that_stand_still(deployment: Deployment, payroll: Host, take: int, most: int) -> None:
    data = apps.pattern(4 * MIB)
    with apps.origin(payroll, lambda sock: sock.sendall(data)) as port:
        before = memory(deployment)
        with standing(deployment.laptop, payroll, take):
            until_nothing_moves(deployment)
            after = memory(deployment)
            with apps.connected(deployment.laptop, payroll.address, port) as ninth:
                assert apps.read_all(ninth) == data
    grown = {role: after[role] - before[role] for role in before}
    assert max(grown.values()) < most, grown
