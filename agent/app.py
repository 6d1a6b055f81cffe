"""The agent's process: capture, names, resolver, routes, a node towards each edge; put together, and taken apart."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from ipaddress import IPv4Network, ip_network
from typing import Any

import structlog

from warren import __version__
from warren.agent.capture.capture import Capture, CaptureConfig
from warren.agent.capture.headers import FlowKey
from warren.agent.config import AgentConfig, Device, load_device, require_root
from warren.agent.control import ControlServer
from warren.agent.dns import DnsFront
from warren.agent.host.guardian import Guardian
from warren.agent.host.journal import Journal
from warren.agent.host.resolver import SystemResolver, open_resolver
from warren.agent.host.routes import MARK, HostRoutes, NetworkChanges
from warren.agent.host.undo import UNDOERS
from warren.agent.names import Names, open_names
from warren.agent.peers import Peers
from warren.agent.status import describe
from warren.agent.tcp import TcpJourney
from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.aio.node import Identity, Node
from warren.fabric.core.errors import ConfigError
from warren.fabric.core.messages import session as say
from warren.fabric.core.messages.attachment import Offer
from warren.fabric.core.messages.peer import LABEL as PEER_LABEL
from warren.fabric.core.reasons import Reason
from warren.fabric.engines import engine
from warren.fabric.identity import keys, proof

log = structlog.get_logger()


class Agent:
    """Everything of one agent. Make it, `start` it in the loop, `close` it: then the host is as it was."""

    def __init__(self, config: AgentConfig, device: Device) -> None:
        """Blocks for about 0.3 s. Raises ConfigError: another agent runs, no TUN device, no permission."""
        self.config = config
        self.device = device
        self.engine = engine(config.engine)
        self.told: say.Network | None = None
        self.upstreams: tuple[str, ...] = ()
        self.stopping = asyncio.Event()
        self._journal = Journal.open(config.state, UNDOERS)
        for note in self._journal.left_over.notes:
            log.warning("left over from an agent that was killed", note=note)
        self._guardian = Guardian.start(self._journal)
        self.names: Names = open_names(config.state, time.time())
        self.resolver_address = self.names.resolver
        local = frozenset({(self.resolver_address.packed, 53)})
        self.capture = Capture.open(CaptureConfig(name=config.interface, local=local))
        self.routes = HostRoutes(self._journal, config.interface, self.names.host, (self.names.range,))
        self._resolver: SystemResolver | None = None
        self._changes: NetworkChanges | None = None
        identity = self._identity()
        self.nodes = [Node(self.engine, identity, edge, self, mark=MARK) for edge in device.edges.edges]
        node = self.nodes[0]
        self.peers = Peers(self.engine, device.network, self._prove, node)
        self.tcp = TcpJourney(self.capture, node, self.peers, self.names)
        self.dns = DnsFront(self.capture, node, self.peers, self.names, MARK)
        self._control = ControlServer(config.socket, {"status": self._status, "down": self._down})
        self._reviewing: asyncio.Task[None] | None = None

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
        for node in self.nodes:
            node.start()
        log.info("agent runs", device=self.device.name, interface=self.config.interface, engine=self.engine.name)

    async def close(self) -> None:
        """Ends every flow and undoes every change to the host."""
        self.tcp.close()
        self.peers.close()
        await self.dns.close()
        if self._changes is not None:
            self._changes.close()
        for node in self.nodes:
            await node.close()
        await self._control.close()
        self.undo()

    def undo(self) -> None:
        """Puts the host back. Also for an agent that could not start."""
        done = self._journal.undo_all()
        for note in done.notes:
            log.warning("not put back", note=note)
        self.capture.close()
        self.names.close()
        self._guardian.dismiss()
        self._journal.close()

    # ---- what nodes tell ----

    def connected(self) -> None:
        pass

    def disconnected(self, reason: Reason, detail: str) -> None:
        self.tcp.forget_grants()

    def welcomed(self, welcome: say.Welcome) -> None:
        pass

    def offered(self, offer: Offer, circuit_socket: CircuitSocket) -> None:
        pass

    def dropped(self, circuit: bytes, circuit_socket: CircuitSocket) -> None:
        """The switch or the connector ended a circuit: its peer connection ends with it."""
        path = circuit_socket.path(circuit)
        if path is not None:
            self.peers.ended(path, Reason.PEER_GONE)

    def network(self, network: say.Network) -> None:
        """What may be captured, at the start and after each change."""
        self.told = network
        self.tcp.forget_grants()
        self._network_changed()

    # ---- the host ----

    def _network_changed(self) -> None:
        if self._reviewing is None or self._reviewing.done():
            self._reviewing = asyncio.create_task(self._review())
        else:
            self._reviewing.add_done_callback(lambda _: self._network_changed())

    async def _review(self) -> None:
        """Routes as the judge and the local networks have it; the resolver once there is something to resolve."""
        if self.told is None:
            return
        try:
            await self.routes.set_up(self._included(self.told.cidrs))
            if self.config.dns and self._resolver is None:
                resolver = open_resolver(self._journal, self.resolver_address)
                before = await asyncio.to_thread(resolver.install)
                self._resolver, self.upstreams = resolver, before.nameservers
        except ConfigError as error:
            log.error("the host could not be changed", error=str(error))
        self.dns.configure(self.told.zones, self.upstreams)

    def _included(self, cidrs: tuple[str, ...]) -> list[IPv4Network]:
        """The judge's CIDRs, cut down to the include list."""
        routed = [network for cidr in cidrs if isinstance(network := ip_network(cidr), IPv4Network)]
        if not self.config.include:
            return routed
        wanted = [network for cidr in self.config.include if isinstance(network := ip_network(cidr), IPv4Network)]
        both = {a if a.subnet_of(b) else b for a in routed for b in wanted if a.overlaps(b)}
        return sorted(both)

    def resolver_state(self) -> str:
        if not self.config.dns:
            return "not set: --no-dns"
        if self._resolver is None:
            return "not set yet"
        return "set" if self._resolver.still_ours() else "changed by another program"

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
        self.dns.datagram(key, bytes(payload))

    # ---- control ----

    async def _status(self, asked: dict[str, Any]) -> dict[str, Any]:
        return describe(self)

    async def _down(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.stopping.set()
        return {"stopping": True}


def run(config: AgentConfig) -> None:
    """Runs the agent in this process until SIGINT, SIGTERM or `warren agent down`. Raises ConfigError."""
    import uvloop

    require_root()
    device = load_device(config.state)

    async def main() -> None:
        agent = Agent(config, device)
        try:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, agent.stopping.set)
            await agent.start()
        except BaseException:
            agent.undo()
            raise
        await agent.stopping.wait()
        log.info("agent stops")
        await agent.close()

    uvloop.run(main())
