"""Two ends of the engine joined by nothing: datagrams are handed over as they come, time is a number."""

from __future__ import annotations

from tests.certificates import SERVER_NAME, Shown, certificates
from warren.fabric.core.engine import (
    Address,
    Batch,
    ClientConfig,
    Connection,
    Endpoint,
    Engine,
    Event,
    Limits,
    ServerConfig,
)
from warren.fabric.engines import engine

AIOQUIC = engine("aioquic")
current = AIOQUIC
"""The engine of ends that are made without another word; the fixture `on` sets it."""
HEADER = b"\x01CIRCUIT"
SHOWN = certificates()
LIMITS = Limits(size=1444, datagrams=True)


def segments(batch: Batch) -> list[bytes]:
    """The datagrams of a batch, headers included."""
    joined = b"".join(batch.parts)
    found = [joined[start : start + batch.stride] for start in range(0, len(joined), batch.stride)]
    assert len(found) == batch.segments
    return found


class Wire:
    """A client and a server connection, and everything that they told."""

    def __init__(
        self,
        limits: Limits = LIMITS,
        *,
        shown: Shown = SHOWN,
        server_limits: Limits | None = None,
        root: bytes | None = None,
        name: str = SERVER_NAME,
        alpn: tuple[str, str] = ("test/1", "test/1"),
        connect: bool = True,
        engines: tuple[Engine, Engine] | None = None,
    ) -> None:
        """`engines`: client's and server's."""
        self.now = 0.0
        calls, answers = engines or (current, current)
        asked = ClientConfig(alpn[0], name, root or shown.root, limits)
        self.client: Connection = calls.connect(asked, self.now)
        served = ServerConfig((alpn[1],), shown.chain, shown.key, server_limits or limits)
        first = self.client.transmit(self.now)
        assert first is not None
        accepted = answers.accept(served, first.parts[0], self.now)
        assert accepted is not None
        self.server: Connection = accepted
        self.events: dict[Connection, list[Event]] = {self.client: [], self.server: []}
        self.server.receive(first.parts[0], 0, b"", self.now)
        if connect:
            self.run()

    def other(self, end: Connection) -> Connection:
        """The far end."""
        return self.server if end is self.client else self.client

    def poll(self) -> None:
        """Collects the events of both ends."""
        for end, told in self.events.items():
            while (event := end.poll_event()) is not None:
                told.append(event)

    def step(self, seconds: float = 0.01) -> None:
        """Some time goes by; timers ring; all that is ready goes over."""
        self.now += seconds
        for end in (self.client, self.server):
            at = end.timer()
            if at is not None and at <= self.now:
                end.handle_timer(self.now)
            self.poll()
            while (batch := end.transmit(self.now)) is not None:
                self.other(end).receive(b"".join(batch.parts), batch.stride if batch.segments > 1 else 0, b"", self.now)
        self.poll()

    def run(self, steps: int = 12) -> None:
        """Several steps."""
        for _ in range(steps):
            self.step()

    def told(self, end: Connection, kind: type) -> list[Event]:
        """The events of one kind that an end told."""
        return [event for event in self.events[end] if isinstance(event, kind)]

    def clear(self) -> None:
        """Forgets the events so far."""
        for told in self.events.values():
            told.clear()


class Crowd:
    """Clients at their own addresses before one endpoint."""

    def __init__(self, config: ServerConfig, count: int = 3) -> None:
        self.now = 0.0
        self.config = config
        self.endpoint: Endpoint = current.endpoint(config, self.now)
        self.clients: dict[Address, Connection] = {}
        self.events: dict[Connection, list[Event]] = {}
        self.served: list[Connection] = []
        self.sent: list[tuple[Address, bytes]] = []
        for _ in range(count):
            self.add()

    def add(self) -> tuple[Address, Connection]:
        """One more client; its first datagram has not left yet."""
        address = (f"10.0.{len(self.clients) // 250}.{len(self.clients) % 250 + 1}", 5_000 + len(self.clients))
        asked = ClientConfig(self.config.alpn[0], SERVER_NAME, SHOWN.root, self.config.limits)
        client = self.clients[address] = current.connect(asked, self.now)
        self.events[client] = []
        return address, client

    def step(self, seconds: float = 0.01) -> None:
        """Some time goes by; timers ring; all that is ready goes over."""
        self.now += seconds
        for address, client in list(self.clients.items()):
            at = client.timer()
            if at is not None and at <= self.now:
                client.handle_timer(self.now)
            while (batch := client.transmit(self.now)) is not None:
                self.endpoint.receive(b"".join(batch.parts), batch.stride, address, self.now)
        at = self.endpoint.timer()
        if at is not None and at <= self.now:
            self.endpoint.handle_timer(self.now)
        while (found := self.endpoint.transmit(self.now)) is not None:
            to, batch = found
            for datagram in segments(batch):
                self.sent.append((to, datagram))
                if to in self.clients:
                    self.clients[to].receive(datagram, 0, b"", self.now)
        while (served := self.endpoint.accept()) is not None:
            self.served.append(served)
            self.events[served] = []
        while (lively := self.endpoint.active()) is not None:
            self._collect(lively)
        for client in self.clients.values():
            self._collect(client)

    def _collect(self, connection: Connection) -> None:
        while (event := connection.poll_event()) is not None:
            self.events[connection].append(event)

    def run(self, steps: int = 12) -> None:
        """Several steps."""
        for _ in range(steps):
            self.step()

    def told(self, connection: Connection, kind: type) -> list[Event]:
        """The events of one kind that a connection told."""
        return [event for event in self.events[connection] if isinstance(event, kind)]
