"""The whole product on the simulated network: real edges, connectors and an agent's side, each a process of its own.

What is not real: the kernel's sockets (process.py), origins and apps (origins.py), the store (a snapshot that changes
reach after a moment) and the connectors' TLS connections (an edge that can be reached hears at once of a process that
was killed, as from its kernel).
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from structlog.testing import capture_logs

from tests.agent_side import AgentSide
from tests.sim.network import Host, Link, Nat, Network
from tests.sim.origins import App, EchoOrigin, TcpOrigin, UdpOrigin
from tests.sim.process import Process, UdpPort, running
from tests.unit.fabric.identity.world import World as Identities
from warren.agent import peers as agent_peers
from warren.agent.config import HOLD
from warren.connector import app as connector_app
from warren.connector import flows as connector_flows
from warren.connector import icmp as connector_icmp
from warren.connector import udp as connector_udp
from warren.connector.app import Connector
from warren.connector.config import ConnectorConfig
from warren.connector.gate import Ceiling
from warren.connector.revocations import LEASE
from warren.edge import app as edge_app
from warren.edge.app import Edge as EdgeProgram
from warren.edge.config import EdgeConfig
from warren.edge.judge import sessions as edge_sessions
from warren.edge.state import Credentials
from warren.edge.store import snapshot
from warren.edge.store.records import Change, Device, Route, Tombstone, Tunnel
from warren.fabric.aio import elapsed as elapsed_module
from warren.fabric.aio import node as node_module
from warren.fabric.aio import udp as udp_module
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.messages.session import Answer
from warren.fabric.engines import EngineName, engine
from warren.fabric.identity import certificates, keys, statements
from warren.fabric.identity.grants import Issuer, certify_grant_key
from warren.fabric.identity.statements import Edge, EdgeList

UNIX = 1_800_000_000.0
TOLD = 0.25
"""Seconds until an edge sees a change of the store."""
FIRST_PORT = 1000
PREFIX = "10.0.0.0/8"


@functools.lru_cache(maxsize=4)
def identities(edges: int) -> tuple[Identities, EdgeList, list[Credentials]]:
    """The network and its edges, made once for all runs. Ids are always the same: the order of edges follows them."""
    made = Identities(edge=f"{0:020x}", tunnel="0123456789abcdef0123")
    listed = EdgeList(1, tuple(Edge(f"{n:020x}", f"203.0.113.{n}", 4433, f"e{n}") for n in range(edges)))
    made.edges, made.signed_edges = listed, statements.sign_edges(made.network_key, listed)
    return made, listed, [_credentials(made, listed, edge) for edge in listed.edges]


def _credentials(made: Identities, listed: EdgeList, edge: Edge) -> Credentials:
    key, grant_key = keys.generate(), keys.generate()
    leaf = certificates.make_edge(made.edge_ca_key, made.edge_ca, edge.id, keys.public(key))
    certified = certify_grant_key(made.edge_ca_key, edge.id, keys.public(grant_key))
    return Credentials(
        edge=edge,
        edges=listed,
        signed_edges=made.signed_edges,
        network=made.network,
        leaf=leaf,
        chain=certificates.pem(leaf, made.edge_ca),
        key=keys.private_pem(key),
        issuer=Issuer(edge.id, grant_key, certified, made.edge_ca),
    )


DEVICE = keys.generate()


class Store:
    """One edge's view of the store."""

    shared = None

    def __init__(self, truth: Truth) -> None:
        self.truth, self.snapshot = truth, truth.snapshot
        self.on_change: Callable[[Any, Change], None] = lambda new, change: None

    def tombstones(self, since: int) -> list[Tombstone]:
        return self.truth.gone

    def take(self, new: snapshot.Snapshot, change: Change) -> None:
        self.snapshot = new
        self.on_change(new, change)


class Truth:
    """What the administrator has decided: one tunnel, one route to it, one device."""

    def __init__(self, made: Identities) -> None:
        self._made, self._revision, self._route = made, 1, 0
        self.gone: list[Tombstone] = []
        self.allowed = True
        self.snapshot = self._build()

    def _build(self) -> snapshot.Snapshot:
        made, when = self._made, int(UNIX)
        tunnel = Tunnel(made.tunnel, "payroll", made.tunnel_ca, made.statement, 1, when, 1)
        route = Route(f"route{self._route}", "ip", PREFIX, made.tunnel, "default", "", when, self._revision)
        thumbprint = keys.thumbprint(keys.public(DEVICE))
        device = Device("device", "ann", thumbprint, "", "default", "ann", (), (), when, when, when, 0, 1)
        return snapshot.build(when, self._revision, [tunnel], [route] if self.allowed else [], [device])

    @property
    def route(self) -> str:
        """The present route's id."""
        return f"route{self._route}"

    def allow(self, allowed: bool) -> Change:
        """Adds a route, or deletes it."""
        self._revision += 1
        self.allowed = allowed
        deleted: tuple[Tombstone, ...] = ()
        if not allowed:
            deleted = (Tombstone(f"route{self._route}", "route", self._revision, int(UNIX)),)
            self.gone += deleted
            self._route += 1
        self.snapshot = self._build()
        return Change(frozenset({f"route{self._route}"}) if allowed else frozenset(), deleted)


class Judge:
    """Answers DNS queries by themselves."""

    async def answer(self, device: Device, message: bytes, transport: str) -> Answer:
        return Answer(message)


class Presence:
    """A connector's TLS connection: the world tells edges of its end (`Whole.kill_connector`)."""

    def __init__(self, identity: Any, edge: Edge) -> None:
        self.identity, self.edge = identity, edge

    def start(self) -> None:
        pass

    there = start

    async def close(self) -> None:
        pass


class Whole:
    """Edges, connectors, one agent. Use it inside `simulated(world)`."""

    def __init__(self, seed: int, edges: int = 2, connectors: int = 2, engine_name: EngineName = "auto") -> None:
        self.network = net = Network(seed)
        self.made, self.listed, self._credentials = identities(edges)
        self.truth, self.engine_name = Truth(self.made), engine_name
        self.edge_hosts = [net.host(edge.host, up=_wan(0.004), down=_wan(0.004)) for edge in self.listed.edges]
        self.connector_hosts = [self._natted(f"10.0.1{n}.1", f"198.51.100.{n}", 0.003) for n in range(connectors)]
        self.agent_host = self._natted("10.0.20.1", "192.0.2.1", 0.01)
        self.edges: list[tuple[Process, EdgeProgram] | None] = [None] * edges
        self.connectors: list[tuple[Process, Connector] | None] = [None] * connectors
        self.agent: tuple[Process, AgentSide] | None = None
        self.processes: list[Process] = []
        self.apps: list[App] = []
        self.origins: list[UdpOrigin | EchoOrigin] = []
        """Connectors' sockets of datagram flows that are nobody's of `apps`."""
        self.hold, self.lease = HOLD, LEASE
        """Seconds: the agent's and the connectors'."""
        self.logs: list[Any] = []
        self._moves = 0

    def _natted(self, inside: str, outside: str, delay: float) -> Host:
        return self.network.host(inside, up=_wan(delay), down=_wan(delay), nat=Nat(outside))

    # ---- processes ----

    def _process(self, host: Host, name: str, start: Callable[[Process], None]) -> Process:
        process = Process(self.network, host, name)
        self.processes.append(process)
        process.call_soon(start, process)
        self.network.run(self.network.now)
        return process

    def start_edge(self, index: int) -> None:
        def start(process: Process) -> None:
            config = EdgeConfig(state_dir=Path("/nonexistent"), listen_host="0.0.0.0", engine=self.engine_name)
            dns = SimpleNamespace(judge=Judge(), search=(), zones=(), follow=lambda snapshot: None)
            store = Store(self.truth)
            program = EdgeProgram(config, self._credentials[index], store, dns)  # type: ignore[arg-type]
            self.edges[index] = process, program

        self._process(self.edge_hosts[index], f"edge {index}", start)

    def kill_edge(self, index: int) -> None:
        found, self.edges[index] = self.edges[index], None
        if found is not None:
            found[0].kill()

    def start_connector(self, index: int) -> None:
        def start(process: Process) -> None:
            ceiling = Ceiling.parse([PREFIX])
            config = ConnectorConfig(ceiling=ceiling, engine=self.engine_name, lease=self.lease)
            program = Connector(config, str(self.made.token()))
            self.connectors[index] = process, program
            program.start()

        self._process(self.connector_hosts[index], f"connector {index}", start)

    def kill_connector(self, index: int) -> None:
        """Its kernel ends its TLS connections: an edge that it reaches doubts it."""
        found, self.connectors[index] = self.connectors[index], None
        if found is None:
            return
        found[0].kill()
        for edge in range(len(self.edges)):
            there = self.edges[edge]
            if there is not None and self.reaches(self.connector_hosts[index], edge):
                there[0].call_later(0.02, there[1]._doubt, found[1]._face.identity.key)

    def start_agent(self) -> None:
        def start(process: Process) -> None:
            side = AgentSide(self.made.network, self.listed, DEVICE, engine(self.engine_name), self.hold)
            self.agent = process, side
            side.start()

        self._process(self.agent_host, "agent", start)

    def kill_agent(self) -> None:
        found, self.agent = self.agent, None
        if found is not None:
            found[0].kill()

    def start(self) -> None:
        """Everything, and waits until it is connected."""
        for index in range(len(self.edges)):
            self.start_edge(index)
        for index in range(len(self.connectors)):
            self.start_connector(index)
        self.start_agent()
        assert self.network.run_until(self.connected, 10.0)

    def connected(self) -> bool:
        """Whether every node that runs is connected to every edge, with its slots bound."""
        programs = [found[1] for found in [self.agent, *self.connectors] if found is not None]
        nodes = [node for program in programs for node in program.nodes]
        return all(
            node.state == "connected" and all(s.slot is not None and s.slot.bound for s in node.sockets)
            for node in nodes
        )

    # ---- network ----

    def nodes(self) -> list[Host]:
        """Hosts of connectors, then the agent's."""
        return [*self.connector_hosts, self.agent_host]

    def reaches(self, host: Host, edge: int) -> bool:
        """Whether packets pass both ways between this host and an edge."""
        there = self.edge_hosts[edge]
        return self.network.passes(host, there) and self.network.passes(there, host)

    def roam(self, host: Host) -> None:
        """Another network: another public address, and the NAT knows nothing."""
        self._moves += 1
        self.network.readdress(host, f"192.0.2.{10 + self._moves % 200}")

    def change(self, allowed: bool) -> None:
        """A route is added, or deleted; edges see it a moment later."""
        change = self.truth.allow(allowed)
        for found in self.edges:
            if found is not None:
                found[0].call_later(TOLD, found[1].repository.take, self.truth.snapshot, change)  # type: ignore[attr-defined]

    # ---- flows ----

    def open(self, protocol: str) -> App | None:
        """An app asks for a flow to an origin of its own."""
        if self.agent is None:
            return None
        process, side = self.agent
        app = App(process, len(self.apps), protocol)
        self.apps.append(app)
        message = Open(os.urandom(16), b"", protocol, FIRST_PORT + app.number, address="10.0.0.1")  # type: ignore[arg-type]
        process.call_soon(lambda: process.create_task(app.open(side, message)))
        return app

    def dialled(self, port: int) -> Any:
        """A connector's socket to the origin of a flow."""
        if port < FIRST_PORT:
            return self._socket(UdpOrigin())
        app, here = self.apps[port - FIRST_PORT], running()
        boot = next(found[1]._face.identity.boot for found in self.connectors if found and found[0] is here)
        origin = TcpOrigin() if app.protocol == "tcp" else UdpOrigin()
        app.dials[boot] = here, origin
        return origin

    def _socket(self, origin: Any) -> Any:
        self.origins.append(origin)
        return origin

    def faults(self) -> list[str]:
        """What a process raised, or logged as an error."""
        raised = [fault for process in self.processes for fault in process.faults]
        return raised + [str(entry) for entry in self.logs if entry["log_level"] in ("error", "critical")]


def _wan(delay: float) -> Link:
    return Link(delay=delay, rate=2_500_000.0, queue=0.1)


class _Clock:
    """The `time` module on the network's clock."""

    CLOCK_BOOTTIME = 7

    def __init__(self, network: Network) -> None:
        self._network = network

    def time(self) -> float:
        return UNIX + self._network.now

    def monotonic(self) -> float:
        return self._network.now

    def clock_gettime(self, clock: int) -> float:
        return self._network.now


@contextmanager
def simulated(world: Whole, seed: int) -> Iterator[None]:
    """While this lasts the programs' clocks, sockets, origins and random numbers are the world's."""
    rnd, clock = random.Random(seed), _Clock(world.network)

    async def dial(addresses: list[str], port: int) -> Any:
        return world.dialled(port)

    with ExitStack() as stack:
        world.logs = stack.enter_context(capture_logs())
        for module in (agent_peers, edge_app, edge_sessions, elapsed_module):
            stack.enter_context(patch.object(module, "time", clock))
        stack.enter_context(patch.object(edge_app, "SteadyClock", lambda: clock.time))
        for module in (udp_module, edge_app):
            stack.enter_context(patch.object(module, "open_socket", UdpPort))
        stack.enter_context(patch.object(node_module, "random", rnd))
        stack.enter_context(patch.object(os, "urandom", rnd.randbytes))
        stack.enter_context(patch.object(connector_app, "Presence", Presence))
        stack.enter_context(patch.object(connector_flows, "dial", dial))
        stack.enter_context(patch.object(connector_udp, "_connected", lambda address, port: world.dialled(port)))
        stack.enter_context(patch.object(connector_icmp, "_open", lambda kind: (world._socket(EchoOrigin()), False)))
        try:
            yield
        finally:
            for process in world.processes:
                process.bury()
