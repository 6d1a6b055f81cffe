"""How long apps wait: new connections, DNS queries and the words of an open flow, one after another, all the while."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.lab import apps
from warren.fabric.core import dnswire
from warren.lab.host import Host

EVERY = 0.05
"""Seconds between the end of one and the beginning of the next."""
RESOLVER = "100.80.0.2"
WORD = b"sixteen bytes ..".ljust(16)
FIRST_PORT = 20_000
"""Nobody listens on it, nor on the next: each opening is a question of its own, which the origin refuses."""


class Waits:
    """What was waited for, how long, by when it began; still open ones count until now."""

    def __init__(self, laptop: Host, origin: str) -> None:
        self.failures: list[str] = []
        self._laptop, self._origin = laptop, origin
        self._begun: dict[str, float] = {}
        self._took: dict[str, list[tuple[float, float]]] = {}
        self._over = threading.Event()
        self._port = FIRST_PORT

    @contextmanager
    def going_on(self, flow: socket.socket, name: str) -> Iterator[None]:
        """`flow`: whose other end sends back what it gets. `name`: under a hostname route."""
        flow.settimeout(apps.PATIENCE)
        query = dnswire.build_query(7, dnswire.name_wire(name), dnswire.A)
        doing = {"connection": self._connect, "query": lambda: self._ask(query), "flow": lambda: self._say(flow)}
        threads = [threading.Thread(target=self._again, args=pair, daemon=True) for pair in doing.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(apps.PATIENCE)

    def longest(self, since: float) -> dict[str, float]:
        """Of those that ended after that moment, by kind, in seconds."""
        now = time.monotonic()
        found = {}
        for name, took in self._took.items():
            late = [seconds for began, seconds in list(took) if began + seconds >= since]
            found[name] = round(max([now - self._begun[name] if name in self._begun else 0.0, *late]), 2)
        return found

    def all_since(self, moment: float) -> bool:
        """Whether one of each kind has begun after that moment and ended."""
        return all(any(began > moment for began, _ in list(took)) for took in self._took.values())

    def _again(self, name: str, do: Callable[[], None]) -> None:
        took = self._took.setdefault(name, [])
        while not self._over.wait(EVERY):
            began = self._begun[name] = time.monotonic()
            try:
                do()
            except (OSError, AssertionError) as error:
                self.failures.append(f"{name}: {error!r}")
                if name == "flow":
                    return
            del self._begun[name]
            took.append((began, time.monotonic() - began))

    def _connect(self) -> None:
        self._port += 1
        found = apps.connect(self._laptop, self._origin, self._port)
        assert found.error == errno.errorcode[errno.ECONNREFUSED], found

    def _ask(self, query: bytes) -> None:
        with self._laptop.network():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.settimeout(apps.PATIENCE)
            client.connect((RESOLVER, 53))
            client.send(query)
            answer = client.recv(2048)
        assert answer[3] & 15 == 0 and answer[7], answer.hex()

    def _say(self, flow: socket.socket) -> None:
        flow.sendall(WORD)
        got = b""
        while len(got) < len(WORD):
            part = flow.recv(len(WORD) - len(got))
            assert part, "the flow has ended"
            got += part
        assert got == WORD, got
