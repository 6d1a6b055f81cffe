"""One peer connection over two edges, under a virtual clock: edges that die, freeze, hear in one direction only."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from itertools import pairwise

from tests.certificates import SERVER_NAME, Shown
from tests.sim.network import Address, Host, Link, Network, Socket
from warren.fabric.core.engine import (
    ClientConfig,
    Closed,
    Connected,
    Connection,
    Engine,
    Event,
    Limits,
    PathChange,
    Readable,
    ServerConfig,
    StreamOpened,
)
from warren.fabric.core.paths import Moved, Paths, State, copy_for

LIMITS = Limits(idle_timeout=900.0, size=1444, send_buffer=128 << 10)
RATE = 250_000.0
"""Bytes a second of either access link."""
QUEUE = 0.06
"""Seconds of it that wait: a round trip under load is twice as long, and two PTOs are most of a stall."""
REQUEST = 100
EVERY = 0.02


class Edge:
    """A switch that passes on what carries a known header."""

    def __init__(self, network: Network, host: Host) -> None:
        self.network, self.host = network, host
        self.ends: dict[bytes, tuple[Address, Address]] = {}
        self.alive, self.frozen = True, False
        self.held: list[tuple[bytes, Address]] = []
        self.seen: list[bytes] = []
        self.socket = host.bind(443, self.received)

    def received(self, data: bytes, source: Address) -> None:
        """Passes one packet on."""
        if self.frozen:
            self.held.append((data, source))
        elif self.alive:
            left, right = self.ends[data[:8]]
            self.seen = [*self.seen[-99:], data]
            self.socket.send(data, right if source == left else left)

    def thaw(self) -> None:
        """Goes on, with everything that came meanwhile."""
        self.frozen, held = False, self.held
        self.held = []
        for data, source in held:
            self.received(data, source)


class End:
    """The agent's or the connector's end: a socket for each edge, as the shells have it."""

    def __init__(self, world: World, host: Host, *, agent: bool) -> None:
        self.world, self.host, self.agent = world, host, agent
        self.connection: Connection | None = None
        self.accepts: Callable[[bytes], Connection | None] = lambda first: None
        self.paths: Paths | None = None
        self.moves: list[Moved] = []
        self.events: list[Event] = []
        self.sent = 0
        self.sockets: list[Socket] = [self._bind(index) for index in range(len(world.edges))]
        self._alarm = world.network.alarm(self._ring)
        world.network.after(world.network.random.random(), self._bind_slots)

    def _bind_slots(self) -> None:
        """While a silence lasts each slot is bound once a second (slot.py); one that succeeds says so."""
        net = self.world.network
        net.after(1.0, self._bind_slots)
        if self.connection is None or self.ways.state is State.LEADING:
            return
        for index, edge in enumerate(self.world.edges):
            if edge.alive and not edge.frozen and not net.cuts(self.host, edge.host):
                net.after(4 * edge.host.up.delay, self._bound, index)

    def _bound(self, index: int) -> None:
        if self.ways.state is not State.LEADING:
            self.ways.handle_changed(self.world.circuits[index], PathChange.RESUMED, self.world.network.now)
            self.drain()

    @property
    def live(self) -> Connection:
        """The connection, which has to be there."""
        assert self.connection is not None
        return self.connection

    @property
    def ways(self) -> Paths:
        """Its circuits."""
        assert self.paths is not None
        return self.paths

    def begin(self, connection: Connection) -> None:
        """A connection on the first circuit; the others stand by."""
        now, circuits = self.world.network.now, self.world.circuits
        self.connection, self.paths = connection, Paths(connection, circuits[0], 1444, now, agent=self.agent)
        for circuit in circuits[1:]:
            self.paths.add(circuit, 1444, now)

    def _bind(self, index: int) -> Socket:
        return self.host.bind(0, lambda data, source: self._received(index, data))

    def _received(self, index: int, data: bytes) -> None:
        circuit, now = self.world.circuits[index], self.world.network.now
        if data[:8] != circuit:
            return
        if self.connection is None:
            made = self.accepts(data[8:])
            if made is None:
                return
            self.begin(made)
        self.ways.handle_received(circuit, self.live.receive(data, 0, circuit, now), now)
        self.drain()

    def _ring(self) -> None:
        now, due = self.world.network.now, self.ways.poll_timeout()
        if due is not None and due[0] <= now:
            self.ways.handle_timeout(now)
        at = self.live.timer()
        if at is not None and at <= now:
            self.live.handle_timer(now)
        self.drain()

    def drain(self) -> None:
        """Events, then datagrams, then one timer."""
        if self.connection is None:
            return
        now, paths = self.world.network.now, self.ways
        while True:
            while (event := self.connection.poll_event()) is not None:
                self.events.append(event)
                self.world.load.event(self, event)
            self.world.load.work(self)
            while (moved := paths.poll_event()) is not None:
                self.moves.append(moved)
            batch = self.connection.transmit(now, paths.lead)
            if batch is None:
                break
            paths.handle_sent()
            for circuit in paths.ways():
                index = self.world.circuits.index(circuit)
                one = batch if circuit == paths.lead else copy_for(batch, circuit)
                self.sent += one.segments
                self.sockets[index].send_batch(one.parts, one.stride, self.world.edges[index].socket.address)
        paths.handle_flight(now)
        due, at = paths.poll_timeout(), self.connection.timer()
        self._alarm.arm(min((time for time in (due and due[0], at) if time), default=None))


class Load:
    """Blobs either way on streams of their own, checked at the end, and small requests with answers all the while."""

    def __init__(self, network: Network, up: int, down: int, flows: int = 2) -> None:
        self.network = network
        rnd = random.Random(7)
        self.blobs = {"up": [rnd.randbytes(up) for _ in range(flows if up else 0)]}
        self.blobs["down"] = [rnd.randbytes(down) for _ in range(flows if down else 0)]
        self.into: dict[tuple[bool, int], bytearray] = {}
        self.left: dict[tuple[bool, int], memoryview] = {}
        self.kinds: dict[int, str] = {}
        self.progress: list[float] = []
        self.asking = False
        self.pinger: int | None = None

    def start(self, agent: End) -> None:
        """Opens everything."""
        for kind, blobs in self.blobs.items():
            for number, blob in enumerate(blobs):
                stream = agent.live.open_stream()
                assert stream is not None
                self.kinds[stream] = kind
                first = bytes([number]) if kind == "down" else b"\xff" + blob
                self.left[True, stream] = memoryview(first)
        agent.drain()

    def chat(self, agent: End) -> None:
        """A request, and another one EVERY seconds after each answer."""
        self.pinger = agent.live.open_stream()
        assert self.pinger is not None
        self.left[True, self.pinger] = memoryview(b"\xfe" + bytes(REQUEST - 1))
        self.kinds[self.pinger] = "chat"
        agent.drain()

    def event(self, end: End, event: Event) -> None:
        """Reads; the connector answers."""
        if isinstance(event, StreamOpened | Readable):
            into = self.into.setdefault((end.agent, event.stream), bytearray())
            before = len(into)
            while data := end.live.read(event.stream, 1 << 20):
                into += data
            if len(into) > before:
                self.progress.append(self.network.now)
                self._answer(end, event.stream, before)

    def _answer(self, end: End, stream: int, before: int) -> None:
        into = self.into[end.agent, stream]
        if end.agent:
            if stream == self.pinger and len(into) % REQUEST == 0:
                self.network.after(EVERY, self._again, end)
        elif into[0] == 0xFE and len(into) % REQUEST == 0:
            self.left[False, stream] = memoryview(bytes(REQUEST))
        elif into[0] < 0xFE and not before:
            self.left[False, stream] = memoryview(self.blobs["down"][into[0]])

    def _again(self, end: End) -> None:
        assert self.pinger is not None
        self.left[True, self.pinger] = memoryview(bytes(REQUEST))
        end.drain()

    def work(self, end: End) -> None:
        """Writes what is left."""
        for (agent, stream), data in list(self.left.items()):
            if agent is end.agent and data:
                self.left[agent, stream] = data[end.live.write(stream, data[:65_536]) :]

    def done(self) -> bool:
        """Everything has arrived."""
        sizes = {"up": (False, 1), "down": (True, 0)}
        for stream, kind in self.kinds.items():
            if kind != "chat":
                agent, extra = sizes[kind]
                if len(self.into.get((agent, stream), b"")) < len(self.blobs[kind][0]) + extra:
                    return False
        return True

    def exact(self) -> bool:
        """Byte for byte."""
        got = {kind: set[bytes]() for kind in self.blobs}
        for stream, kind in self.kinds.items():
            if kind != "chat":
                data = bytes(self.into[True, stream]) if kind == "down" else bytes(self.into[False, stream][1:])
                got[kind].add(hashlib.sha256(data).digest())
        return all(got[kind] == {hashlib.sha256(b).digest() for b in blobs} for kind, blobs in self.blobs.items())

    def stall(self, since: float, until: float | None = None) -> float:
        """The longest gap in what arrives, from `since` on."""
        end = self.network.now if until is None else until
        times = [since, *(at for at in self.progress if since < at < end), end]
        return max(b - a for a, b in pairwise(times))

    def first_after(self, at: float) -> float:
        """Seconds from `at` to the first byte after it."""
        return next(time for time in self.progress if time > at) - at


class World:
    """Agent, connector, and an edge for each of `delays` (seconds from a node to it)."""

    def __init__(
        self,
        seed: int,
        engines: tuple[Engine, Engine],
        shown: Shown,
        *,
        up: int = 0,
        down: int = 0,
        delays: tuple[float, ...] = (0.005, 0.005),
        loss: float = 0.0,
    ) -> None:
        self.network = net = Network(seed)
        self.circuits = [b"\x00circ%03d" % index for index in range(len(delays))]
        self.edges = []
        for index, delay in enumerate(delays):
            host = net.host(f"198.51.100.{index}", up=Link(delay=delay), down=Link(delay=delay))
            self.edges.append(Edge(net, host))
        self.load = Load(net, up, down)
        hosts = [
            net.host(
                f"10.0.{n}.1",
                up=Link(0.001, rate=RATE, queue=QUEUE, loss=loss),
                down=Link(0.001, rate=RATE, queue=QUEUE, loss=loss),
            )
            for n in (1, 2)
        ]
        self.agent, self.connector = End(self, hosts[0], agent=True), End(self, hosts[1], agent=False)
        for index, edge in enumerate(self.edges):
            ends = self.agent.sockets[index].address, self.connector.sockets[index].address
            edge.ends[self.circuits[index]] = ends
        asked = ServerConfig(("test/1",), shown.chain, shown.key, LIMITS)
        self.connector.accepts = lambda first: engines[1].accept(asked, first, net.now)
        client = ClientConfig("test/1", SERVER_NAME, shown.root, LIMITS)
        self.agent.begin(engines[0].connect(client, net.now))
        self.agent.drain()
        assert net.run_until(lambda: self._saw(Connected), 30.0)
        self.load.start(self.agent)

    def _saw(self, kind: type) -> bool:
        return all(any(isinstance(event, kind) for event in end.events) for end in (self.agent, self.connector))

    def run(self, seconds: float) -> None:
        """Runs on."""
        self.network.run(self.network.now + seconds)

    def finish(self, limit: float = 120.0) -> None:
        """Runs until every blob is there, and looks at it."""
        finished = self.network.run_until(self.load.done, limit)
        closed = [event for end in (self.agent, self.connector) for event in end.events if isinstance(event, Closed)]
        assert not closed, closed
        assert finished, self.moves()
        assert self.load.exact()

    def moves(self) -> tuple[int, int]:
        """Changes of the leading circuit: the agent's, the connector's."""
        return len(self.agent.moves), len(self.connector.moves)

    def bound(self, index: int, change: PathChange = PathChange.RESUMED) -> None:
        """Both slots of this circuit are bound again."""
        for end in (self.agent, self.connector):
            end.ways.handle_changed(self.circuits[index], change, self.network.now)
            end.drain()
