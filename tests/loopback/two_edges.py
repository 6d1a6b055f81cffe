"""Two edges, a connector and the agent's side of a peer connection in one process, on 127.0.0.1; one store for all."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from unittest.mock import patch

from tests.agent_side import Told
from tests.unit.fabric.identity.world import World
from warren.agent.opening import Opening, Wanted
from warren.agent.peers import Peers
from warren.agent.standby import Standbys
from warren.connector.app import Connector
from warren.connector.config import ConnectorConfig
from warren.connector.gate import Ceiling
from warren.edge.app import Edge as EdgeProcess
from warren.edge.config import EdgeConfig
from warren.edge.dns.service import DnsService
from warren.edge.presence import listening
from warren.edge.state import Credentials
from warren.edge.store import values
from warren.edge.store.database import open_store
from warren.edge.store.repository import Repository
from warren.fabric.aio.node import Node
from warren.fabric.aio.owner import Identity
from warren.fabric.core.flow import Flow
from warren.fabric.core.messages.peer import LABEL as PEER_LABEL
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.reasons import Reason
from warren.fabric.engines import engine
from warren.fabric.identity import certificates, keys, proof, statements, tokens
from warren.fabric.identity.grants import Issuer, certify_grant_key
from warren.fabric.identity.statements import Edge, EdgeList

ALLOWED = "127.0.0.1/32"
PATIENCE = 20.0


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Waits for it, or fails."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Echoed:
    """A flow's owner: what came back."""

    def __init__(self, agent: AgentSide) -> None:
        self.agent = agent
        self.flow: Flow | None = None
        self.opening: Opening | None = None
        self.got = bytearray()
        self.out = b""
        self.refusals: list[Reason] = []
        self.over = False

    def opened(self, flow: Flow, address: str) -> None:
        """It may write now."""
        self.flow = flow
        self.writable(flow)

    def refused(self, reason: Reason, detail: str) -> None:
        """It may not."""
        self.refusals.append(reason)

    def readable(self, flow: Flow) -> None:
        """Reads all, and returns its credit."""
        while data := flow.read(1 << 16):
            self.got += data
            flow.took(len(data), asyncio.get_running_loop().time())
        self.over = flow.ended is not None
        self.flush()

    def writable(self, flow: Flow) -> None:
        """Writes what is left."""
        while self.out and (taken := flow.write(memoryview(self.out)[: 1 << 16])):
            self.out = self.out[taken:]
        self.flush()

    def datagram(self, payload: bytes) -> None:
        """None come."""

    def unreachable(self, reason: Reason) -> None:
        """Never said of TCP."""

    def send(self, data: bytes) -> None:
        """Adds to what is written."""
        self.out += data
        if self.flow is not None:
            self.writable(self.flow)

    def flush(self) -> None:
        """Sends what there is to send."""
        if self.opening is not None:
            self.opening.flush()


class AgentSide(Told):
    """It asks the first edge."""

    def __init__(self, world: World, edges: EdgeList, key: object) -> None:
        def sign(label: bytes, challenge: bytes, leaf: bytes) -> bytes:
            return proof.sign(key, label, challenge, leaf)  # type: ignore[arg-type]

        public = keys.public(key)  # type: ignore[arg-type]
        made = engine()
        identity = Identity("agent", public, sign, world.network)
        self.nodes = [Node(made, identity, edge, self) for edge in edges.edges]
        self.peers = Peers(
            made, world.network, lambda c, leaf: (public, sign(PEER_LABEL, c, leaf)), lambda _: self.nodes[0]
        )
        self.standbys = Standbys(self.peers, lambda _: self.nodes)

    async def open(self, port: int) -> Echoed:
        """A flow to the origin."""
        granted = await self.nodes[0].judge.decide("tcp", port, address="127.0.0.1")
        owner = Echoed(self)
        message = Open(os.urandom(16), granted.grant, "tcp", port, address="127.0.0.1")
        owner.opening = self.peers.open(Wanted(granted, message, owner))
        await until(lambda: owner.flow is not None or owner.refusals)
        assert not owner.refusals, owner.refusals
        return owner

    def ways(self) -> int:
        """Circuits of the one peer connection."""
        (state,) = self.peers.states()
        return len(state.path.ways) if state.path is not None else 0

    def leads(self) -> int:
        """Which edge leads, by index."""
        (state,) = self.peers.states()
        assert state.path is not None
        return next(i for i, node in enumerate(self.nodes) if state.path.socket in node.sockets)


class Place:
    """Everything of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world = folder, World()
        world = self.world
        ids = [world.edge, keys.new_id()]
        self.list = EdgeList(1, tuple(Edge(id_, "127.0.0.1", free_port(), f"e{n}") for n, id_ in enumerate(ids)))
        world.edges, world.signed_edges = self.list, statements.sign_edges(world.network_key, self.list)
        self.stack = AsyncExitStack()
        self.running: dict[int, tuple[AsyncExitStack, EdgeProcess]] = {}
        self.device = keys.generate()
        self.repository: Repository
        self.connector: Connector
        self.agent: AgentSide
        self.port = 0

    def credentials(self, edge: Edge) -> Credentials:
        """As `warren edge init` would have written them."""
        world, key, grant_key = self.world, keys.generate(), keys.generate()
        leaf = certificates.make_edge(world.edge_ca_key, world.edge_ca, edge.id, keys.public(key))
        certified = certify_grant_key(world.edge_ca_key, edge.id, keys.public(grant_key))
        return Credentials(
            edge=edge,
            edges=self.list,
            signed_edges=world.signed_edges,
            network=world.network,
            leaf=leaf,
            chain=certificates.pem(leaf, world.edge_ca),
            key=keys.private_pem(key),
            issuer=Issuer(edge.id, grant_key, certified, world.edge_ca),
        )

    async def start_edge(self, index: int) -> EdgeProcess:
        """A new process of this edge."""
        stack = AsyncExitStack()
        config = EdgeConfig(state_dir=self.folder, listen_host="127.0.0.1")
        repository = self.repository
        dns = DnsService(config.dns, self.folder / f"dns{index}", repository.policies, lambda: repository.snapshot)
        stack.push_async_callback(dns.close)
        edge = EdgeProcess(config, self.credentials(self.list.edges[index]), repository, dns)
        stack.push_async_callback(edge.close)
        await stack.enter_async_context(listening(edge.presences, edge.socket.getsockname()[:2], edge.shown))
        self.running[index] = stack, edge
        return edge

    def freeze(self, index: int) -> None:
        """It reads nothing more; what is sent to it waits in its socket's buffer."""
        edge = self.running[index][1]
        edge._loop.remove_reader(edge.socket.fileno())
        edge._timer.cancel()

    def thaw(self, index: int) -> None:
        """It goes on."""
        edge = self.running[index][1]
        edge._loop.add_reader(edge.socket.fileno(), edge._readable)
        edge._timer.arm()

    async def stop_edge(self, index: int) -> None:
        """Its process ends, and says nothing that anybody hears."""
        self.freeze(index)
        stack, edge = self.running.pop(index)
        edge._send = lambda address, batch: True  # type: ignore[method-assign]
        await stack.aclose()

    async def up(self) -> None:
        """Starts everything; both nodes are attached to both edges."""
        self.stack.enter_context(patch.object(values, "_KEPT", ()))  # the origin is on this host's loopback
        self.repository = await open_store(self.folder / "store.sqlite", create=True)
        self.stack.push_async_callback(self.repository.close)
        now, world, store = int(time.time()), self.world, self.repository
        await store.new_epoch(now * 1000)
        await store.add_tunnel(world.tunnel, "payroll", world.tunnel_ca, world.statement, 1, now)
        await store.add_route("ip", ALLOWED, world.tunnel, now=now)
        secret = tokens.new_secret()
        await store.add_device("ann", tokens.secret_hash(secret), now + 3600, now)
        await store.enrol(secret, keys.thumbprint(keys.public(self.device)), "host", now)
        origin = await asyncio.start_server(_echo, "127.0.0.1", 0)
        self.stack.callback(origin.close)
        self.port = origin.sockets[0].getsockname()[1]
        for index in range(2):
            await self.start_edge(index)
        self.connector = Connector(ConnectorConfig(ceiling=Ceiling.parse([ALLOWED])), str(world.token()))
        self.connector.start()
        self.stack.push_async_callback(self.connector.close)
        self.agent = AgentSide(world, self.list, self.device)
        self.agent.start()
        self.stack.push_async_callback(self.agent.close)
        await until(lambda: all(n.state == "connected" for n in [*self.agent.nodes, *self.connector.nodes]))
        await until(lambda: self.connector.gate.revocations.taken)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    """Up, and taken apart afterwards."""
    made = Place(folder)
    try:
        await made.up()
        yield made
    finally:
        await made.stack.aclose()
        for stack, _ in made.running.values():
            await stack.aclose()
