"""The agent's process: capture, names, resolver, routes, a node towards each edge; put together, and taken apart."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from contextlib import AsyncExitStack, ExitStack
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import structlog

from warren import __version__
from warren.agent.attachments import Attachments
from warren.agent.capture.capture import Capture, CaptureConfig
from warren.agent.capture.headers import FlowKey
from warren.agent.config import AgentConfig, Device, load_device, require_root, save_edges
from warren.agent.control import ControlServer, require_free
from warren.agent.decisions import Decisions
from warren.agent.dns import Choice, DnsFront, is_name
from warren.agent.dns_before import ResolversBefore
from warren.agent.health import families, ready
from warren.agent.host import netlink
from warren.agent.host.guardian import KEPT, Guardian
from warren.agent.host.journal import Journal
from warren.agent.host.resolved import EVERYTHING, routing_domains
from warren.agent.host.resolver import SystemResolver, open_resolver
from warren.agent.host.routes import MARK, HostRoutes, Network, NetworkChanges
from warren.agent.host.undo import UNDOERS
from warren.agent.names import NameJournal, choose_host6
from warren.agent.peers import Peers
from warren.agent.standby import Standbys
from warren.agent.status import describe
from warren.agent.switchboard import Switchboard
from warren.agent.tcp import TcpJourney
from warren.agent.udp import UdpJourney
from warren.fabric.aio import logs
from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.aio.edges import Newest
from warren.fabric.aio.node import Node
from warren.fabric.aio.owner import Identity
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.core.messages import session as say
from warren.fabric.core.messages.attachment import Offer
from warren.fabric.core.messages.peer import LABEL as PEER_LABEL
from warren.fabric.core.reasons import Reason
from warren.fabric.daemon import metrics
from warren.fabric.daemon.health import Health, serve_health
from warren.fabric.daemon.privileges import keep_only, to_write_in
from warren.fabric.daemon.systemd import notify
from warren.fabric.daemon.trimming import trimmed
from warren.fabric.engines import choose
from warren.fabric.identity import keys, proof

log = structlog.get_logger()

SMALLEST_MTU, LARGEST_MTU = 1280, 1500
"""Of the TUN: below 1280 Linux takes IPv6 off the interface; above 1500 nobody expects it."""
UDP_HEADERS = 28
"""Bytes of IPv4 and UDP headers."""


class SyntheticNames:
    """The synthetic addresses by the wall clock, as the journeys ask for them: packed addresses, names."""

    def __init__(self, journal: NameJournal) -> None:
        self.journal = journal
        self.vnet = ""
        """The device's virtual network: a name of another one is nobody's here. Empty: not known yet."""
        self.network6: IPv6Network | None = None
        """The /64 whose addresses stand for the IPv4 ones, which their last 32 bits are; None: no IPv6 here."""

    def address_of(self, vnet: str, name: str) -> bytes | None:
        """None: every address of the range is in use."""
        address = self.journal.address_of(vnet, name, time.time())
        return address.packed if isinstance(address, IPv4Address) else None

    def address6_of(self, vnet: str, name: str) -> bytes | None:
        """None: every address is in use, or there is no IPv6 on this host."""
        address = self.address_of(vnet, name)
        if self.network6 is None or address is None:
            return None
        return self.network6[int.from_bytes(address, "big")].packed

    def name_of(self, address: bytes) -> str | None:
        address = self._short(address)
        owner = self.journal.owner_of(address, time.time()) if len(address) == 4 else None
        return owner.name if owner is not None and self.vnet in ("", owner.virtual_network) else None

    def is_synthetic(self, address: bytes) -> bool:
        address = self._short(address)
        return len(address) == 4 and IPv4Address(address) in self.journal.names.network

    def _short(self, address: bytes) -> bytes:
        """The IPv4 address that a synthetic IPv6 one stands for; any other as it is."""
        six = self.network6
        if six is None or len(address) != 16 or address[:12] != six.network_address.packed[:12]:
            return address
        return address[12:]


class Ground:
    """What the agent takes from the host, before the event loop runs, and gives back after it.

    (pyroute2's blocking calls can't be used inside a running loop, and a namespace is best made while there is one
    thread.)
    """

    def __init__(self, config: AgentConfig) -> None:
        """Blocks for about 0.5 s. Raises ConfigError: another agent runs, no TUN device, no permission."""
        self.journal = Journal.open(config.state, UNDOERS)
        for note in self.journal.left_over.notes:
            log.warning("left over from an agent that was killed", note=note)
        self._stack = ExitStack()
        self._stack.callback(self.journal.close)
        try:
            guardian = Guardian.start(self.journal)
            self._stack.callback(guardian.dismiss)
            taken = netlink.taken_networks(config.interface)
            self.network6 = choose_host6(taken)
            taken4 = [network for network in taken if isinstance(network, IPv4Network)]
            self.names = SyntheticNames(NameJournal.open(config.state / "names", taken4))
            self._stack.callback(self.names.journal.close)
            self.resolver = self.names.journal.names.resolver_address
            local = frozenset({(self.resolver.packed, 53)})
            self.capture = Capture.open(CaptureConfig(name=config.interface, local=local))
            self._stack.callback(self.capture.close)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Puts the host back: first what the journal holds, then everything else in the reverse order."""
        done = self.journal.undo_all()
        for note in done.notes:
            log.warning("not put back", note=note)
        self._stack.close()


class Agent:
    """Everything of one agent that runs in the loop. `start` it, `close` it."""

    def __init__(self, config: AgentConfig, device: Device, ground: Ground) -> None:
        self.config = config
        self.device = device
        self._chosen = choose(config.engine, config.controller)
        self.engine = self._chosen.engine
        self.told: say.Network | None = None
        self.upstreams: tuple[str, ...] = ()
        self.stopping = asyncio.Event()
        self.capture, self._names = ground.capture, ground.names
        self.resolver_address = ground.resolver
        self._journal = ground.journal
        own, six = self._names.journal.names, ground.network6
        self._network6 = six
        own6 = [six] if six else []
        self.routes = HostRoutes(
            ground.journal, config.interface, own.host_address, (own.network, *own6), six[1] if six else None
        )
        self._resolver: SystemResolver | None = None
        self._changes: NetworkChanges | None = None
        identity = self._identity()
        self._edges = Newest(device.network, device.edges)
        self._attachments = attachments = Attachments(
            device.id,
            device.edges,
            lambda edge: Node(self.engine, identity, edge, self, mark=MARK),
            self._leaving,
            lambda: (state.tunnel for state in self.peers.states()),
        )
        self.switchboard = Switchboard(device.id, lambda: self.nodes, lambda: self._edges.edges, attachments.reach)
        self.peers = Peers(self.engine, device.network, self._prove, self.switchboard.for_tunnel, config.hold)
        self.standbys = Standbys(self.peers, self.switchboard.nodes_for)
        self.decisions = Decisions(self.switchboard)
        self.peers.outdated = self.decisions.forget
        self.tcp = TcpJourney(self.capture, self.decisions, self.peers, self._names)
        routers = (own.resolver_address.packed, *([six[2].packed] if six else []))
        self.udp = UdpJourney(self.capture, self.decisions, self.peers, self._names, routers)
        self.udp.on_refusal = self.tcp.note
        self.peers.datagrams_ready = self._datagrams_ready
        said = config.dns
        own_names = (str(edge.host) for edge in device.edges.edges)
        choice = Choice(said.scope == "everything", said.fallback, said.local, tuple(filter(is_name, own_names)))
        self.dns = DnsFront(self.capture, self.switchboard, self.peers, self._names, ResolversBefore(MARK), choice)
        commands = {"status": self._status, "down": self._down, "vnet": self._vnet, "metrics": self._metrics}
        self._control = ControlServer(config.socket, commands)
        self._reviewing: asyncio.Task[None] | None = None

    @property
    def nodes(self) -> list[Node]:
        """One for each edge that the device is attached to."""
        return self._attachments.nodes

    def _identity(self) -> Identity:
        key = self.device.key

        def sign(label: bytes, challenge: bytes, leaf: bytes) -> bytes:
            return proof.sign(key, label, challenge, leaf)

        host = socket.gethostname()
        return Identity(
            "agent", keys.public(key), sign, self.device.network, host=host, program=f"warren {__version__}"
        )

    def _prove(self, challenge: bytes, leaf: bytes) -> tuple[bytes, bytes]:
        return keys.public(self.device.key), proof.sign(self.device.key, PEER_LABEL, challenge, leaf)

    # ---- life ----

    async def start(self) -> None:
        """Raises ConfigError: the control socket or the host's routes can't be had."""
        await self._control.start()
        self.capture.start(self)
        await self.routes.set_up(())
        self._changes = NetworkChanges(self._network_changed)
        self._attachments.start()
        self.standbys.start()
        log.info("QUIC engine", **self._chosen.words())
        log.info("agent runs", device=self.device.name, interface=self.config.interface)

    async def close(self) -> None:
        """Ends every flow; the host is the ground's to put back."""
        self.tcp.close()
        self.udp.close()
        self.standbys.close()
        self.peers.close()
        await self.dns.close()
        if self._changes is not None:
            self._changes.close()
        if self._reviewing is not None:
            await asyncio.gather(self._reviewing, return_exceptions=True)
        await self._attachments.close()
        self.capture.close()
        await self._control.close()

    # ---- what nodes tell ----

    def connected(self) -> None:
        self._attachments.connected()
        self.dns.judge_is_back()

    def disconnected(self, reason: Reason, detail: str) -> None:
        self.decisions.forget()
        if reason is Reason.DEVICE_UNKNOWN:  # its connectors have ended everything, and can't tell us any more
            self.peers.end_all(reason)

    def silent(self, node: Node) -> None:
        """Peer connections go on through another edge, if there is one."""
        self.switchboard.avoid(node)
        if self.switchboard.others(node):
            self.peers.leave(node.sockets, silent=node.state == "connected")

    def _leaving(self, node: Node) -> None:
        for circuit_socket in node.sockets:
            self.peers.renew(circuit_socket)

    def edges(self, signed: bytes) -> None:
        """The network's list of edges; the newest is kept for the next start."""
        if self._edges.take(signed):
            save_edges(self.config.state, signed)
            self._attachments.follow(self._edges.edges)

    def forgotten(self, circuit_socket: CircuitSocket) -> None:
        self.peers.renew(circuit_socket)

    def welcomed(self, welcome: say.Welcome) -> None:
        pass

    def revoked(self, revoked: say.Revoked, node: Node) -> None:
        pass

    def offered(self, offer: Offer, circuit_socket: CircuitSocket, identity: Identity) -> None:
        pass

    def dropped(self, circuit: bytes, circuit_socket: CircuitSocket) -> None:
        """The switch or the connector ended a circuit: its peer connection ends with the last one."""
        path = circuit_socket.path(circuit)
        if path is not None:
            self.peers.dropped(path, circuit)

    def away(self, circuit: bytes, circuit_socket: CircuitSocket) -> None:
        path = circuit_socket.path(circuit)
        if path is not None:
            self.peers.away(path, circuit)

    def network(self, network: say.Network) -> None:
        """What may be captured, at the start and after each change."""
        self.told = network
        self._names.vnet = network.vnet
        self.decisions.forget()
        self._network_changed()

    # ---- the host ----

    def _network_changed(self) -> None:
        for node in self.nodes:
            node.roam()
        if self._reviewing is None or self._reviewing.done():
            self._reviewing = asyncio.create_task(self._review())
        else:
            self._reviewing.add_done_callback(lambda _: self._network_changed())

    async def _review(self) -> None:
        """Routes as the judge and the local networks have it; the resolver once there is something to resolve."""
        if self.told is None:
            return
        included = self._included(self.told.cidrs)
        self._end_flows_outside(included)
        try:
            await self.routes.set_up(included, self._excluded())
            if self.config.dns.system:
                await self._point_resolver(self.told)
        except ConfigError as error:
            log.error("the host could not be changed", error=str(error))
        self._names.network6 = self._network6 if self.routes.six else None
        left = self.routes.plan.leave
        self.dns.configure(self.told.zones, self.upstreams, self.routes.plan.install, left)

    async def _point_resolver(self, told: say.Network) -> None:
        """The system's resolver at ours. Raises ConfigError."""
        networks = [*self.routes.plan.install, self._names.journal.names.network]
        domains = (EVERYTHING,) if self.config.dns.scope == "everything" else routing_domains(told.zones, networks)
        if self._resolver is None:
            resolver = await asyncio.to_thread(
                open_resolver, self._journal, self.resolver_address, self.config.interface
            )
            before = await asyncio.to_thread(resolver.install, domains, told.search)
            self._resolver = resolver
        else:
            before = await asyncio.to_thread(self._resolver.follow, domains, told.search)
        self.upstreams = before.nameservers

    def _end_flows_outside(self, included: list[Network]) -> None:
        """Flows to addresses that lead into the TUN no more are ended: their packets would get lost elsewhere."""

        def outside(key: FlowKey) -> bool:
            return not self._names.is_synthetic(key.destination) and not any(
                ip_address(key.destination) in network for network in included
            )

        for flow in [flow for flow in self.tcp.flows.values() if outside(flow.key)]:
            self.tcp.end(flow, Reason.NO_ROUTE)
        for datagrams in [flow for flow in self.udp.flows.values() if outside(flow.key)]:
            self.udp.end(datagrams)
            self.capture.unreachable(datagrams.key, Reason.NO_ROUTE)

    def _included(self, cidrs: tuple[str, ...]) -> list[Network]:
        """The judge's CIDRs, cut down to the include list."""
        routed = [ip_network(cidr) for cidr in cidrs]
        if not self.config.include:
            return routed
        wanted = [ip_network(cidr) for cidr in self.config.include]
        pairs = [(a, b) for a in routed for b in wanted if a.version == b.version and a.overlaps(b)]
        return list({a if a.prefixlen >= b.prefixlen else b for a, b in pairs})

    def _excluded(self) -> list[Network]:
        return [ip_network(cidr) for cidr in self.config.exclude]

    async def resolver_state(self) -> str:
        """In words."""
        if not self.config.dns.system:
            return "not set: --no-dns"
        if self._resolver is None:
            return "not set yet"
        ours = await asyncio.to_thread(self._resolver.still_ours)
        return self._resolver.way if ours else "changed by another program"

    # ---- the capture's handler ----

    def syn(self, key: FlowKey) -> None:
        self.tcp.syn(key)

    def cancelled(self, key: FlowKey) -> None:
        self.tcp.cancelled(key)

    def accepted(self, key: FlowKey, sock: socket.socket) -> None:
        if key.destination == self.resolver_address.packed:
            self.dns.accepted(key, sock)
        else:
            self.tcp.accepted(key, sock)

    def datagram(self, key: FlowKey, payload: memoryview) -> None:
        if key.destination == self.resolver_address.packed:
            self.dns.datagram(key, bytes(payload))
        else:
            self.udp.datagram(key, bytes(payload))

    def echo(self, key: FlowKey, sequence: int, hops: int, data: memoryview) -> None:
        self.udp.echo(key, sequence, hops, bytes(data))

    def _datagrams_ready(self, room: int) -> None:
        """The TUN's MTU follows what goes through unfragmented; TCP does not care, it ends here."""
        self.capture.set_mtu(max(SMALLEST_MTU, min(LARGEST_MTU, room + UDP_HEADERS)))

    # ---- control ----

    async def _status(self, asked: dict[str, Any]) -> dict[str, Any]:
        return describe(self, await self.resolver_state())

    async def _vnet(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The virtual network that the device is in (from now on `use`, if given), and those that may be chosen."""
        wanted = asked.get("use")
        if wanted is not None:
            try:
                await self.switchboard.choose(str(wanted))
            except DeniedError as error:
                return {"error": str(error)}
            while self._reviewing is not None and not self._reviewing.done():
                await asyncio.wait({self._reviewing})
        if self.told is None:
            return {"error": "no edge has told yet which virtual networks there are: see `warren agent status`"}
        return {"vnet": self.told.vnet, "choices": list(self.told.vnets or (self.told.vnet,))}

    async def _metrics(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"text": metrics.text([*metrics.process(), *families(self)])}

    async def _down(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.stopping.set()
        return {"stopping": True}


def run(config: AgentConfig) -> None:
    """Runs the agent in this process until SIGINT, SIGTERM or `warren agent down`. Raises ConfigError."""
    import uvloop

    require_root()
    device = load_device(config.state)
    require_free(config.socket)

    async def main() -> None:
        agent = Agent(config, device, ground)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, agent.stopping.set)
        logs.on_hangup(loop, agent.stopping.set)
        async with AsyncExitStack() as stack:
            stack.enter_context(trimmed())
            if config.metrics is not None:
                state = Health(lambda: ready(agent), lambda: families(agent))
                await stack.enter_async_context(serve_health(config.metrics, state))
            stack.push_async_callback(agent.close)
            await agent.start()
            notify("READY=1")
            await agent.stopping.wait()
            notify("STOPPING=1")
            log.info("agent stops")

    ground = Ground(config)
    try:
        keep_only((*KEPT, *to_write_in(config.state)))
        uvloop.run(main())
    finally:
        ground.close()
