"""The edge's process: one UDP port for circuits and QUIC, judge and switch behind it, the admin API beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import AsyncExitStack, ExitStack

import structlog

from warren.dnsfilter.buildprocess import BuildProcess
from warren.dnsfilter.refresh import Building
from warren.edge.api.app import create_app
from warren.edge.api.context import Identity
from warren.edge.api.server import serve
from warren.edge.clock import SteadyClock
from warren.edge.config import EdgeConfig
from warren.edge.connections import Connections
from warren.edge.dns.service import DnsService
from warren.edge.edgelist import KnownEdges
from warren.edge.health import families, ready
from warren.edge.judge.admission import ConnectorNode, Doorkeeper, Shown
from warren.edge.judge.sessions import Authority, Sessions
from warren.edge.presence import Presences, listening
from warren.edge.starting import open_or_recall
from warren.edge.state import Credentials, load_credentials, locked
from warren.edge.store.copy import FILE, StoreCopy
from warren.edge.store.follow import Follower
from warren.edge.store.records import Change
from warren.edge.store.repository import Repository
from warren.edge.store.snapshot import Snapshot
from warren.edge.switch.attachments import Attachments
from warren.edge.switch.circuits import Circuits
from warren.edge.switch.forward import Forwarder
from warren.edge.switch.model import Admission
from warren.fabric.aio import logs
from warren.fabric.aio.standstill import Standstill
from warren.fabric.aio.timer import Timer
from warren.fabric.aio.udp import SOL_UDP, UDP_SEGMENT, open_socket
from warren.fabric.core.engine import Address, Batch, Limits, ServerConfig
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.attachment import LABEL, Attach
from warren.fabric.core.reasons import Reason
from warren.fabric.daemon.health import Health, serve_health
from warren.fabric.daemon.privileges import keep_only, to_write_in
from warren.fabric.daemon.scheduling import in_batches
from warren.fabric.daemon.systemd import notify
from warren.fabric.daemon.trimming import trimmed
from warren.fabric.engines import choose
from warren.fabric.identity import keys

log = structlog.get_logger()

ALPN = "warren-attach/1"
ATTACH_LIMITS = Limits(idle_timeout=75.0, streams=128, stream_window=1 << 20, connection_window=4 << 20)
"""Idle: an agent beats every 20 s, so three are missed. Windows: messages of at most 1 MiB."""


LOOK_AGAIN = 60.0
"""Seconds between looks at a key that is about to end."""


def listen_host(wanted: str) -> str:
    """The address to bind: `::` takes both families, but for a kernel without IPv6."""
    if wanted != "::":
        return wanted
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return "0.0.0.0"  # noqa: S104 (an edge is there to be reached)
    return wanted


class Edge:
    """Judge and switch on one UDP port."""

    def __init__(
        self, config: EdgeConfig, credentials: Credentials, repository: Repository, dns: DnsService, age: float = 0.0
    ) -> None:
        """`repository`: as it was read `age` seconds ago. Raises ConfigError if the port can't be had."""
        self._loop = asyncio.get_running_loop()
        self.repository = repository
        copy = StoreCopy(config.state_dir / FILE, credentials.edge.id)
        self.follower = Follower(repository, config.lease, age=age, copy=copy)
        self.known = KnownEdges(credentials, config.state_dir)
        listens = listen_host(config.listen_host), config.listen_port or credentials.edge.port
        self.socket = open_socket(listens, tos=True)
        now = self._loop.time()
        doorkeeper = Doorkeeper(credentials.network, credentials.leaf, lambda: repository.snapshot, time.time)
        self.dns = dns
        self._clock = SteadyClock()
        self.sessions = Sessions(self._authority(credentials, doorkeeper))
        self.follower.on_turn = self.sessions.tell_age
        self._doorkeeper = doorkeeper
        self._verifier = credentials.verifier()
        boot = os.urandom(16)
        self.circuits = Circuits(boot, self._permitted, os.urandom, now)
        self.forwarder = Forwarder(self.circuits)
        attachments = Attachments(self.circuits, self._admit)
        server = ServerConfig((ALPN,), credentials.chain, credentials.key, ATTACH_LIMITS, retry=True)
        self.chosen = choose(config.engine, config.controller)
        self.engine = self.chosen.engine
        self.endpoint = self.engine.endpoint(server, now)
        self.connections = Connections(self.endpoint, boot, self.sessions, attachments, self._send)
        self._timer = Timer(lambda: self.circuits.poll_timeout()[0], self._due)
        self._writing = False
        self.presences = Presences(doorkeeper, self._doubt)
        self.shown = server
        self._ending: asyncio.TimerHandle | None = None
        self._await_end(repository.snapshot, time.time())
        repository.on_change = self._changed
        self._old = False
        """What is to be read first came while this process stood still."""
        self._standstill = Standstill(self._stood_still)
        self._loop.add_reader(self.socket.fileno(), self._readable)
        self._timer.arm()

    def _authority(self, credentials: Credentials, doorkeeper: Doorkeeper) -> Authority:
        return Authority(
            credentials.edge.id,
            doorkeeper,
            credentials.issuer,
            self.repository,
            self.dns.judge,
            self.follower,
            self._signed,
            self.dns.search,
            self.dns.zones,
            self._clock,
        )

    def _signed(self) -> bytes:
        return self.known.signed

    # ---- what the switch asks the judge ----

    def _admit(self, attach: Attach, challenge: bytes) -> Admission | Reason:
        shown = Shown(attach.role, attach.key, attach.signature, attach.certificates, attach.statement)
        try:
            node = self._doorkeeper.identify(LABEL, challenge, shown)
        except DeniedError as error:
            return error.reason
        if isinstance(node, ConnectorNode):
            return Admission(attach.key, attach.role, attach.boot, node.tunnel.id, node.authority, node.revision)
        return Admission(attach.key, attach.role, attach.boot)

    def _permitted(self, permit: bytes, key: bytes) -> str | Reason:
        """The tunnel that a pass is for. The device must still be there: a deleted one gets no new circuit."""
        try:
            said = self._verifier.permit(permit, self._clock())
        except DeniedError as error:
            return error.reason
        snapshot = self.repository.snapshot
        thumbprint = keys.thumbprint(key)
        if said.thumbprint != thumbprint or snapshot.device(thumbprint) is None:
            return Reason.DEVICE_UNKNOWN
        return said.tunnel if snapshot.tunnel(said.tunnel) is not None else Reason.NO_ROUTE

    def _changed(self, snapshot: Snapshot, change: Change) -> None:
        if self.known.take(snapshot.edges):
            self._verifier.update(self.known.edges)
            self.sessions.tell_edges()
        self.dns.follow(snapshot)
        self.sessions.changed(snapshot, change)
        self._turn_away(snapshot)

    def _turn_away(self, snapshot: Snapshot) -> None:
        """Who may be here no longer leaves, now or when the next key of a tunnel ends."""
        now = time.time()
        self.connections.flush()  # what sessions were told goes out before connections are closed below
        for member in list(self.circuits.members):
            if member.role == "agent":
                reason = Reason.DEVICE_UNKNOWN
                here = snapshot.device(keys.thumbprint(member.key)) is not None
            else:
                reason, tunnel = Reason.WRONG_TUNNEL, snapshot.tunnel(member.tunnel)
                here = tunnel is not None and tunnel.admits(member.authority, member.revision, now)
            if not here:
                self.connections.attachments.expel(member.key, reason, self._loop.time())
        self.connections.flush()
        self._await_end(snapshot, now)

    def _await_end(self, snapshot: Snapshot, now: float) -> None:
        """Looks again when a key from before a rotation ends. The clock may be set meanwhile, hence the bound."""
        if self._ending is not None:
            self._ending.cancel()
        until = min((tunnel.until for tunnel in snapshot.tunnels.values() if tunnel.until > now), default=None)
        wait = None if until is None else min(until - now, LOOK_AGAIN)
        self._ending = None if wait is None else self._loop.call_later(wait, self._end_keys)

    def _end_keys(self) -> None:
        snapshot = self.repository.snapshot
        self.sessions.turn_away(snapshot, time.time())
        self._turn_away(snapshot)

    def _doubt(self, key: bytes) -> None:
        """The TLS connection of a connector process has ended: if it does not answer any more, its flows end."""
        self.connections.doubt(key, lambda: self._gone(key))

    def _gone(self, key: bytes) -> None:
        log.info("connector process gone", connector=keys.thumbprint(key)[:8])
        self.connections.attachments.expel(key, Reason.PEER_GONE, self._loop.time())
        self.connections.flush()

    # ---- packets ----

    def _stood_still(self) -> None:
        self._old = True

    def _readable(self) -> None:
        self._standstill.look()
        more = self.forwarder.serve(self.socket, self._loop.time, self.connections.receive, old=self._old)
        self._old = self._old and more
        self.connections.settle()
        self._timer.arm()

    def _send(self, address: Address, batch: Batch) -> bool:
        control = [(SOL_UDP, UDP_SEGMENT, batch.stride.to_bytes(2, "little"))] if batch.segments > 1 else []
        try:
            self.socket.sendmsg(batch.parts, control, 0, address)
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self.socket.fileno(), self._writable)
            return False
        except OSError as error:
            log.debug("a batch was lost", error=error.strerror)
        return True

    def _writable(self) -> None:
        self._writing = False
        self._loop.remove_writer(self.socket.fileno())
        self.connections.flush()

    def _due(self, now: float) -> None:
        self.circuits.handle_timeout(now)
        self.forwarder.flush(self.socket)
        self.connections.flush()
        self._timer.arm()

    async def close(self) -> None:
        self.repository.on_change = lambda snapshot, change: None
        if self._ending is not None:
            self._ending.cancel()
        self.connections.close()
        self._timer.cancel()
        self._standstill.close()
        self._loop.remove_reader(self.socket.fileno())
        self._loop.remove_writer(self.socket.fileno())
        self.socket.close()


async def serve_edge(config: EdgeConfig, stop: asyncio.Event, building: Building | None = None) -> None:
    """Runs the edge until `stop`. `building`: where DNS lists are built, if not in a thread.

    Raises ConfigError: not initialised, port or socket in use.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(locked(config.state_dir))
        stack.enter_context(trimmed())
        stack.enter_context(in_batches())
        credentials = load_credentials(config.state_dir)
        files = to_write_in(config.state_dir)
        keep_only(("CAP_NET_BIND_SERVICE", *files))  # before the store's thread is started; then the ports are taken
        opened = await open_or_recall(config, credentials.edge.id, stop)
        if opened is None:
            return
        repository, age = opened
        stack.push_async_callback(repository.close)
        state_dir = config.state_dir / "dns"
        dns = DnsService(config.dns, state_dir, repository.policies, lambda: repository.snapshot, building)
        stack.push_async_callback(dns.close)
        await dns.start()
        edge = Edge(config, credentials, repository, dns, age)
        stack.push_async_callback(edge.close)
        await edge.known.settle(repository)
        following = asyncio.create_task(edge.follower.run())
        stack.push_async_callback(_cancelled, following)
        addresses = tuple(str(entry) for entry in credentials.edges.edges)
        identity = Identity(credentials.fingerprint, credentials.network, addresses, credentials.edge.id)
        await stack.enter_async_context(listening(edge.presences, edge.socket.getsockname()[:2], edge.shown))
        await stack.enter_async_context(
            serve(create_app(repository, edge.sessions, identity, dns=dns), config.admin_socket)
        )
        if config.metrics is not None:
            state = Health(lambda: ready(edge), lambda: families(edge))
            await stack.enter_async_context(serve_health(config.metrics, state))
        keep_only(files)
        host, port = edge.socket.getsockname()[:2]
        log.info("QUIC engine", **edge.chosen.words())
        log.info("edge runs", listen=f"{host}:{port}", admin=str(config.admin_socket), edge=credentials.edge.id)
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        log.info("edge stops")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def run(config: EdgeConfig) -> None:
    """Runs the edge in this process until SIGINT or SIGTERM."""
    import uvloop

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        logs.on_hangup(loop, stop.set)
        await serve_edge(config, stop, builder.build if builder is not None else None)

    with ExitStack() as stack:
        builder = (
            stack.enter_context(BuildProcess(lambda: keep_only(to_write_in(config.state_dir))))
            if config.dns.lists
            else None
        )
        uvloop.run(main())
