"""A simulated network under a virtual clock: seeded, replayable, no sockets, no asyncio.

    net = Network(seed=7)
    lap = net.host("10.1.0.5", up=Link(delay=0.01, rate=2e6, queue=0.06, loss=0.02), nat=Nat("198.51.100.1"))
    srv = net.host("203.0.113.9")
    a = lap.bind(4000, on_datagram)      # on_datagram(data, source address); net.now is the time
    b = srv.bind(443, on_datagram)
    a.send(b"...", b.address)
    net.run(until=10.0)                  # or net.run_until(condition, limit=10.0)

The way of a datagram: sender's `up` link, its NAT, partitions, receiver's NAT, receiver's `down` link, its socket. What
is lost is counted by reason in `net.lost`. All randomness comes from the seed; ties in time go in order of sending.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int]
Handler = Callable[[bytes, Address], None]

IP_UDP = 28
"""Bytes of IPv4 and UDP headers, which count for rate and MTU."""


@dataclass
class Link:
    """One direction of a host's access link. Change fields while it runs: they count for what is sent from then on."""

    delay: float = 0.005
    """Seconds one way."""
    jitter: float = 0.0
    """Up to so many seconds more, drawn anew for each packet (which reorders)."""
    rate: float | None = None
    """Bytes a second; None: unlimited."""
    queue: float = 0.1
    """Seconds of `rate` that may wait; beyond, the tail is dropped."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Share of packets that are held back by up to two more delays."""
    mtu: int = 1500
    """Bytes of a packet with its IP header; larger ones vanish silently."""
    up: bool = True
    """False: a blackout in this direction."""
    busy_until: float = field(default=0.0, repr=False)


@dataclass
class Nat:
    """An address translator in front of a host. `symmetric`: a mapping for each destination; lets in only what was
    sent to. `idle`: seconds after which an unused mapping is forgotten."""

    public: str
    symmetric: bool = True
    idle: float = 120.0
    next_port: int = 20_000
    outside: dict[tuple[int, Address | None], tuple[int, float]] = field(default_factory=dict, repr=False)
    inside: dict[int, tuple[int, Address | None]] = field(default_factory=dict, repr=False)
    allowed: set[tuple[int, Address]] = field(default_factory=set, repr=False)

    def rebind(self, public: str | None = None) -> None:
        """Forgets all mappings; the next packets get new ports (and the new address, if one is given)."""
        self.outside.clear()
        self.inside.clear()
        self.allowed.clear()
        if public is not None:
            self.public = public

    def out(self, port: int, to: Address, now: float) -> Address:
        """Public source address of what the host sends from `port` to `to`."""
        key = (port, to if self.symmetric else None)
        public, used = self.outside.get(key, (0, 0.0))
        if not public or now - used > self.idle:
            self.inside.pop(public, None)
            public, self.next_port = self.next_port, self.next_port + 1
            self.inside[public] = key
        self.outside[key] = (public, now)
        self.allowed.add((public, to))
        return self.public, public

    def into(self, public: int, source: Address, now: float) -> int | None:
        """The host's port that a packet to `public` goes to; None if there is no mapping for it."""
        key = self.inside.get(public)
        if key is None or (public, source) not in self.allowed or now - self.outside[key][1] > self.idle:
            return None
        self.outside[key] = (public, now)
        return key[0]


class Socket:
    """A UDP port of a host."""

    def __init__(self, host: Host, port: int, handler: Handler) -> None:
        self.host, self.port, self.handler = host, port, handler

    @property
    def address(self) -> Address:
        """Where the host believes to be."""
        return self.host.addresses[0], self.port

    def send(self, data: bytes, to: Address) -> None:
        """One datagram."""
        self.host.network.carry(self.host, self.port, bytes(data), to)

    def send_batch(self, parts: Iterable[bytes | bytearray | memoryview], stride: int, to: Address) -> None:
        """A GSO batch: segments of `stride` bytes, the last may be shorter."""
        joined = b"".join(parts)
        for start in range(0, len(joined), stride):
            self.send(joined[start : start + stride], to)

    def close(self) -> None:
        """Packets to this port vanish from now on."""
        self.host.sockets.pop(self.port, None)


class Host:
    """A host with addresses, an access link in each direction, perhaps a NAT."""

    def __init__(self, network: Network, addresses: list[str], up: Link, down: Link, nat: Nat | None) -> None:
        self.network, self.addresses, self.up, self.down, self.nat = network, addresses, up, down, nat
        self.sockets: dict[int, Socket] = {}

    def bind(self, port: int, handler: Handler) -> Socket:
        """A socket on `port`; 0 takes a free one."""
        while not port or port in self.sockets:
            port = self.network.random.randrange(30_000, 60_000)
        socket = self.sockets[port] = Socket(self, port, handler)
        return socket

    def blackout(self, up: bool = True, down: bool = True) -> None:
        """Nothing goes through in the named directions until `restore`."""
        self.up.up, self.down.up = not up, not down

    def restore(self) -> None:
        """Both directions work."""
        self.up.up = self.down.up = True

    def move(self, address: str) -> None:
        """The host is on another network; packets to the old address vanish."""
        self.network.readdress(self, address)


class Alarm:
    """One timer: `arm` replaces what was armed before."""

    def __init__(self, network: Network, callback: Callable[[], None]) -> None:
        self._network, self._callback, self._at = network, callback, None
        self._at: float | None

    def arm(self, at: float | None) -> None:
        """Rings once at `at` (at once if that has passed); None: never."""
        if at != self._at:
            self._at = at
            if at is not None:
                self._network.at(at, self._ring, at)

    def _ring(self, at: float) -> None:
        if self._at == at:
            self._at = None
            self._callback()


class Network:
    """Clock, hosts, and what is under way."""

    def __init__(self, seed: int = 0, start: float = 1000.0) -> None:
        self.now = start
        self.random = random.Random(seed)
        self.lost: Counter[str] = Counter()
        """Datagrams that did not arrive, by reason: loss, queue, mtu, link, nat, partition, host, port."""
        self.carried = 0
        self.trace: Callable[[float, Address, Address, bytes], None] | None = None
        """Called for each datagram that arrives: (now, source, destination, data)."""
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._by_address: dict[str, Host] = {}
        self._cut: set[tuple[Host, Host]] = set()

    # ---- clock

    def at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        """Calls `call` at the time `when`, or at once if that has passed."""
        self._count += 1
        heapq.heappush(self._events, (max(when, self.now), self._count, call, arguments))

    def after(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        """Calls `call` in `delay` seconds."""
        self.at(self.now + delay, call, *arguments)

    def alarm(self, callback: Callable[[], None]) -> Alarm:
        """A timer that can be re-armed."""
        return Alarm(self, callback)

    def run(self, until: float) -> None:
        """Runs up to the time `until` (absolute)."""
        self.run_until(lambda: False, until - self.now)

    def run_until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Runs until `condition` holds or `limit` seconds have gone by; returns whether it holds."""
        end = self.now + limit
        while not condition():
            if not self._events or self._events[0][0] > end:
                self.now = end
                return condition()
            self.now, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
        return True

    # ---- topology

    def host(self, *addresses: str, up: Link | None = None, down: Link | None = None, nat: Nat | None = None) -> Host:
        """A host; behind a NAT its addresses are private ones."""
        host = Host(self, list(addresses), up or Link(), down or Link(), nat)
        for address in [nat.public] if nat else addresses:
            self._by_address[address] = host
        return host

    def readdress(self, host: Host, address: str) -> None:
        """See `Host.move`."""
        for old in [known for known, owner in self._by_address.items() if owner is host]:
            del self._by_address[old]
        if host.nat is not None:
            host.nat.rebind(address)
        else:
            host.addresses[0] = address
        self._by_address[address] = host

    def rebind(self, host: Host, public: str | None = None) -> None:
        """The host's NAT forgets: new ports, and a new public address if one is given."""
        assert host.nat is not None
        if public is not None:
            self.readdress(host, public)
        else:
            host.nat.rebind()

    def cut(self, source: Host, destination: Host) -> None:
        """Nothing goes from `source` to `destination` any more (one direction), whatever their addresses."""
        self._cut.add((source, destination))

    def partition(self, one: Host, other: Host) -> None:
        """Nothing goes between the two."""
        self.cut(one, other)
        self.cut(other, one)

    def heal(self) -> None:
        """Undoes every `cut` and `partition`."""
        self._cut.clear()

    def cuts(self, one: Host, other: Host) -> bool:
        """Whether the way is cut, in either direction."""
        return (one, other) in self._cut or (other, one) in self._cut

    def passes(self, source: Host, destination: Host) -> bool:
        """Whether anything gets there from `source`."""
        return source.up.up and destination.down.up and (source, destination) not in self._cut

    # ---- packets

    def carry(self, host: Host, port: int, data: bytes, to: Address) -> None:
        """A datagram leaves `host`."""
        for arrival in self._pass(host.up, data):
            self.at(arrival, self._middle, host, port, data, to)

    def _middle(self, host: Host, port: int, data: bytes, to: Address) -> None:
        source = host.nat.out(port, to, self.now) if host.nat else (host.addresses[0], port)
        target = self._by_address.get(to[0])
        if target is None or (host, target) in self._cut:
            self.lost["host" if target is None else "partition"] += 1
            return
        inner = to[1]
        if target.nat is not None:
            found = target.nat.into(to[1], source, self.now)
            if found is None:
                self.lost["nat"] += 1
                return
            inner = found
        for arrival in self._pass(target.down, data):
            self.at(arrival, self._arrive, target, inner, data, source)

    def _arrive(self, host: Host, port: int, data: bytes, source: Address) -> None:
        socket = host.sockets.get(port)
        if socket is None:
            self.lost["port"] += 1
            return
        self.carried += 1
        if self.trace is not None:
            self.trace(self.now, source, socket.address, data)
        socket.handler(data, source)

    def _pass(self, link: Link, data: bytes) -> list[float]:
        """When the copies of a packet come out of a link; none if it is lost."""
        rnd = self.random
        size = len(data) + IP_UDP
        if not link.up or size > link.mtu or rnd.random() < link.loss:
            self.lost["link" if not link.up else "mtu" if size > link.mtu else "loss"] += 1
            return []
        start = self.now
        if link.rate is not None:
            start = max(start, link.busy_until)
            if start - self.now > link.queue:
                self.lost["queue"] += 1
                return []
            start = link.busy_until = start + size / link.rate
        copies = 2 if link.duplicate and rnd.random() < link.duplicate else 1
        return [start + link.delay + self._held_back(link) for _ in range(copies)]

    def _held_back(self, link: Link) -> float:
        held = self.random.random() * link.jitter if link.jitter else 0.0
        if link.reorder and self.random.random() < link.reorder:
            held += self.random.random() * 2 * link.delay
        return held
