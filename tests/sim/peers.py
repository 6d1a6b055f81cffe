"""Engine connections on the simulated network: each behind a header, driven as a shell would."""

from __future__ import annotations

from collections.abc import Callable

from tests.certificates import SERVER_NAME, Shown
from tests.sim.network import Address, Host, Network
from warren.fabric.core.engine import (
    ClientConfig,
    Connected,
    Connection,
    Endpoint,
    Engine,
    Event,
    Limits,
    ServerConfig,
)

HEADER = b"\x01CIRCUIT"


class Peer:
    """One end of a connection whose paths are the caller's: one socket, one header."""

    def __init__(
        self, network: Network, host: Host, on_event: Callable[[Peer, Event], None], header: bytes = HEADER
    ) -> None:
        self.network, self.header = network, header
        self.connection: Connection | None = None
        self.accepts: Callable[[bytes], Connection | None] | None = None
        self.to: Address | None = None
        self.events: list[Event] = []
        self.on_event = on_event
        self.work: Callable[[], None] = lambda: None
        """Called before each drain: where a test writes what is due."""
        self.socket = host.bind(0, self._received)
        self._alarm = network.alarm(self._ring)
        self._busy = False

    @property
    def live(self) -> Connection:
        """The connection, which has to be there."""
        assert self.connection is not None
        return self.connection

    def saw(self, kind: type) -> bool:
        """Whether an event of that kind came."""
        return any(isinstance(event, kind) for event in self.events)

    def _received(self, data: bytes, source: Address) -> None:
        if self.connection is None:
            if self.accepts is None or (made := self.accepts(data[len(self.header) :])) is None:
                return
            self.connection = made
        before = self.connection.receive(data, 0, self.header, self.network.now)
        if before.newest:
            self.to = source
        self.drain()

    def _ring(self) -> None:
        self.live.handle_timer(self.network.now)
        self.drain()

    def drain(self) -> None:
        """Events, then datagrams, then the timer: the contract of every call."""
        if self._busy or self.connection is None:
            return
        self._busy = True
        connection, now = self.connection, self.network.now
        while True:
            while (event := connection.poll_event()) is not None:
                self.events.append(event)
                self.on_event(self, event)
            self.work()
            batch = connection.transmit(now, self.header)
            if batch is None:
                break
            if self.to is not None:
                self.socket.send_batch(batch.parts, batch.stride, self.to)
        self._busy = False
        self._alarm.arm(connection.timer())


def pair(
    network: Network,
    engines: tuple[Engine, Engine],
    hosts: tuple[Host, Host],
    shown: Shown,
    limits: Limits,
    on_event: Callable[[Peer, Event], None] = lambda peer, event: None,
) -> tuple[Peer, Peer]:
    """A client on the first host and a server on the second; the handshake is on its way."""
    client, server = Peer(network, hosts[0], on_event), Peer(network, hosts[1], on_event)
    client.to = server.socket.address
    asked = ServerConfig(("test/1",), shown.chain, shown.key, limits)
    server.accepts = lambda first: engines[1].accept(asked, first, network.now)
    client.connection = engines[0].connect(ClientConfig("test/1", SERVER_NAME, shown.root, limits), network.now)
    client.drain()
    return client, server


def connected(client: Peer, server: Peer) -> bool:
    """Whether both ends have seen the handshake through."""
    return client.saw(Connected) and server.saw(Connected)


class Serving:
    """An endpoint on a socket of its own: many connections, ordinary QUIC."""

    def __init__(
        self, network: Network, host: Host, made: Endpoint, on_event: Callable[[Connection, Event], None]
    ) -> None:
        self.network, self.endpoint, self.on_event = network, made, on_event
        self.connections: list[Connection] = []
        self.socket = host.bind(443, self._received)
        self._alarm = network.alarm(self._ring)

    def _received(self, data: bytes, source: Address) -> None:
        self.endpoint.receive(data, 0, source, self.network.now)
        self.drain()

    def _ring(self) -> None:
        self.endpoint.handle_timer(self.network.now)
        self.drain()

    def drain(self) -> None:
        """New connections, events, datagrams, then the timer."""
        endpoint, now = self.endpoint, self.network.now
        while True:
            while (new := endpoint.accept()) is not None:
                self.connections.append(new)
            while (lively := endpoint.active()) is not None:
                while (event := lively.poll_event()) is not None:
                    self.on_event(lively, event)
                endpoint.touch(lively)
            found = endpoint.transmit(now)
            if found is None:
                break
            self.socket.send_batch(found[1].parts, found[1].stride, found[0])
        self._alarm.arm(endpoint.timer())
