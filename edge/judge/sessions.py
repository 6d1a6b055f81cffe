"""Agents and connectors that are here: their sessions, in what health, and what they are told when something changes.

`Sessions` is the register (and what the admin API shows of the running edge); `Session` is one node's, on one
connection: the judge's half of fabric/core/session.py. What has to wait (the store, DNS) runs as a task.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from msgspec.structs import replace

from warren.edge.api.live import ConnectorView, Status
from warren.edge.judge.admission import ConnectorNode, DeviceNode, Doorkeeper, Shown
from warren.edge.judge.decide import Decision, Refused, decide, grant
from warren.edge.judge.resolver import JudgeResolver
from warren.edge.store.errors import cause_of
from warren.edge.store.follow import AWAY, Follower
from warren.edge.store.records import Change, Device
from warren.edge.store.repository import Repository
from warren.edge.store.snapshot import Snapshot
from warren.fabric.core.engine import StreamReset, StreamStopped
from warren.fabric.core.errors import DeniedError, WireError
from warren.fabric.core.messages import session as say
from warren.fabric.core.printable import printable
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream
from warren.fabric.identity import grants, keys, proof

log = structlog.get_logger()

QUERIES = 64
"""DNS queries of one device under way."""
SESSIONS_PER_DEVICE = 8
"""Sessions of one device at once: one, and those of before that are not known dead yet. The newest stay."""
REMEMBERED = 86_400.0
"""Seconds for which a connector that enters hears of a deletion: far longer than a grant opens flows, since the clock
by which deletions are dated may be set by some hours meanwhile."""
CHOOSE_EVERY = 0.5
"""Seconds between two choices of one session: each is a transaction of the store, and tells everybody."""
MISSED = 3.5
"""Seconds without a beat after which a connector is taken for gone: three missed."""


@dataclass(frozen=True, slots=True)
class Authority:
    """What the judge signs and decides with."""

    edge: str
    doorkeeper: Doorkeeper
    issuer: grants.Issuer
    repository: Repository
    resolver: JudgeResolver
    follower: Follower
    edges: Callable[[], bytes]
    """The newest signed list of edges."""
    search: tuple[str, ...] = ()
    """Domains that devices complete short names with."""
    zones: tuple[str, ...] = ()
    """Names of the resolver's own zones, as agents are told to ask about them."""
    clock: Callable[[], float] = time.time
    """The time that is signed, Unix time in seconds: it must not jump (edge/clock.py)."""

    @property
    def snapshot(self) -> Snapshot:
        return self.repository.snapshot


class Sessions:
    """All sessions of this edge. Implements the API's `Live`."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.counters: Counter[str] = Counter()
        self._agents: dict[str, dict[Session, None]] = {}
        self._connectors: dict[str, dict[bytes, Session]] = {}
        self._known: set[str] = set()

    # ---- register ----

    def entered(self, session: Session) -> None:
        match session.node:
            case DeviceNode(device, _):
                there = self._agents.setdefault(device.id, {})
                there[session] = None
                if len(there) > SESSIONS_PER_DEVICE:
                    next(iter(there)).expel(Reason.LIMIT)
            case ConnectorNode(tunnel):
                self._known.add(tunnel.id)
                self._connectors.setdefault(tunnel.id, {})[session.boot] = session

    def left(self, session: Session) -> None:
        match session.node:
            case DeviceNode(device, _):
                there = self._agents.get(device.id, {})
                there.pop(session, None)
                if not there:
                    self._agents.pop(device.id, None)
            case ConnectorNode(tunnel):
                if self._connectors.get(tunnel.id, {}).get(session.boot) is session:
                    del self._connectors[tunnel.id][session.boot]

    def changed(self, snapshot: Snapshot, change: Change) -> None:
        """The store has changed: agents hear what they may capture now, connectors what is no more, and who was deleted
        leaves."""
        gone = tuple((tombstone.id, tombstone.revision) for tombstone in change.deleted)
        if gone or change.everything:
            for session in [one for there in self._connectors.values() for one in there.values()]:
                if change.everything:
                    session.tell_revoked()
                else:
                    session.say_revoked(snapshot.epoch, gone)
        for device_id, sessions in list(self._agents.items()):
            device = snapshot.devices_by_id.get(device_id)
            for session in list(sessions):
                if device is None:
                    session.expel(Reason.DEVICE_UNKNOWN)
                else:
                    session.now_is(device)
        self.turn_away(snapshot, time.time())

    def turn_away(self, snapshot: Snapshot, now: float) -> None:
        """Connectors of deleted tunnels, and those whose key holds no longer, leave. `now`: Unix time in seconds."""
        for tunnel_id, connectors in list(self._connectors.items()):
            tunnel = snapshot.tunnel(tunnel_id)
            for session in list(connectors.values()):
                node = session.node
                if not isinstance(node, ConnectorNode):
                    continue
                if tunnel is None:
                    session.expel(Reason.WRONG_TUNNEL)
                elif not tunnel.admits(node.authority, node.revision, now):
                    session.expel(Reason.WRONG_TUNNEL, "its token was replaced by a newer one")

    def tell_age(self) -> None:
        """The store has gone away, or is back: connectors hear whether we confirm their flows."""
        for there in self._connectors.values():
            for session in list(there.values()):
                session.say_revoked(self.authority.snapshot.epoch, ())

    def tell_edges(self) -> None:
        """The list of edges has changed: everybody hears it."""
        for session in self._all():
            session.tell_edges()

    def _all(self) -> list[Session]:
        agents = [session for there in self._agents.values() for session in there]
        return agents + [session for there in self._connectors.values() for session in there.values()]

    # ---- Live ----

    def status(self, tunnel: str) -> Status:
        there = self._connectors.get(tunnel, {})
        fit = [session for session in there.values() if session.healthy]
        if fit:
            return "healthy" if len(fit) == len(there) else "degraded"
        return "degraded" if there else ("down" if tunnel in self._known else "inactive")

    def connectors(self, tunnel: str) -> Sequence[ConnectorView]:
        return [
            ConnectorView(
                boot=session.boot.hex(), host=session.host, since=int(session.since), flows=session.flows,
                draining=session.draining, program=session.program, revision=session.node.revision,
                key=session.node.authority.hex(),
            )
            for session in self._connectors.get(tunnel, {}).values()
            if isinstance(session.node, ConnectorNode)
        ]  # fmt: skip


class Session:
    """One node before the judge."""

    def __init__(
        self, sessions: Sessions, challenge: bytes, flush: Callable[[], None], close: Callable[[Reason], None]
    ) -> None:
        """`flush`: drain and transmit the connection. `close(reason)`: end it."""
        self.node: DeviceNode | ConnectorNode | None = None
        self.boot = b""
        self.host = ""
        self.program = ""
        self.since = time.time()
        self.flows = 0
        self.draining = False
        self._sessions = sessions
        self._authority = sessions.authority
        self._challenge = challenge
        self._flush = flush
        self._close = close
        self._control: MessageStream[Any, Any] | None = None
        self._told: say.Network | None = None
        self._heard = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._queries = 0
        self._chose = 0.0

    @property
    def healthy(self) -> bool:
        return not self.draining and time.monotonic() - self._heard < MISSED

    # ---- from the connection ----

    def begin(self, control: MessageStream[Any, Any], first: say.Enter | say.Enrol) -> None:
        """The first message of the session's control stream. Raises WireError."""
        if self._control is not None:
            raise WireError("a second session on one connection")
        self._control = control
        if isinstance(first, say.Enrol):
            self._spawn(self._enrol(first))
        else:
            self._enter(first)

    def handle_readable(self, stream: int, now: float) -> None:
        assert self._control is not None
        for message in self._control.handle_readable():
            self._take(message)

    def handle_writable(self, stream: int, now: float) -> None:
        assert self._control is not None
        self._control.handle_writable()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        raise WireError("the session's control stream was reset")

    def query(self, stream: MessageStream[Any, Any], query: say.Query, answered: Callable[[], None]) -> None:
        """A DNS query on a stream of its own; `answered` is called once that was finished. Raises WireError from
        anybody but an agent with a session."""
        if not isinstance(self.node, DeviceNode):
            raise WireError("a query without a session")
        if self._queries >= QUERIES:
            stream.finish()
            answered()
            return
        self._queries += 1
        self._spawn(self._answer(stream, query, self.node.device, answered))

    def gone(self) -> None:
        """The connection is over."""
        for task in self._tasks:
            task.cancel()
        if self.node is not None:
            self._sessions.left(self)
            log.info("session over", **self._who())
        self.node = None

    def expel(self, reason: Reason, detail: str = "") -> None:
        """What it was admitted for is gone."""
        self._refuse(DeniedError(reason, detail))

    # ---- entering ----

    def _enter(self, enter: say.Enter) -> None:
        shown = Shown(enter.role, enter.key, enter.signature, enter.certificates, enter.statement)
        try:
            self.node = self._authority.doorkeeper.identify(say.LABEL, self._challenge, shown)
        except DeniedError as error:
            self._refuse(error)
            return
        if len(enter.boot) != 16:
            raise WireError("a boot id that is not 16 bytes")
        self.boot, self.host = enter.boot, printable(enter.host)[:255]
        self.program = printable(enter.program)[:40]
        self._sessions.entered(self)
        log.info("session", program=self.program, **self._who())
        match self.node:
            case DeviceNode(device, _):
                self.tell_network(device)
            case ConnectorNode(tunnel):
                self._send(say.Welcome(tunnel.id, tunnel.name, self._authority.edge, self._authority.clock()))
                self.tell_revoked()
        self.tell_edges()

    def _who(self) -> dict[str, str]:
        match self.node:
            case DeviceNode(device, _):
                return {"device": device.name}
            case ConnectorNode(tunnel):
                return {"tunnel": tunnel.name, "connector": self.boot.hex()[:8]}
        return {}

    async def _enrol(self, enrol: say.Enrol) -> None:
        try:
            proof.verify(enrol.key, enrol.signature, say.ENROL_LABEL, self._challenge, self._authority.doorkeeper.leaf)
            thumbprint = keys.thumbprint(enrol.key)
            device = await self._authority.repository.enrol(
                enrol.secret, thumbprint, printable(enrol.host)[:255], int(time.time())
            )
        except DeniedError as error:
            self._refuse(error)
            return
        except AWAY as error:
            log.warning("a device can't be enrolled", cause=cause_of(error))
            self._refuse(DeniedError(Reason.JUDGE_AWAY, "its store can't be reached now: the key still works later"))
            return
        log.info("device enrolled", device=device.name)
        self._send(say.Enrolled(device.id, device.name))
        self._flush()

    def _refuse(self, error: DeniedError) -> None:
        """Says why, and ends the connection once that was said."""
        self._sessions.counters[f"refused_{error.reason.word}"] += 1
        log.info("session refused", reason=error.reason.word, detail=error.detail, **self._who())
        if self._control is not None:
            self._send(say.Refused(error.reason.code, error.detail))
            self._flush()
        asyncio.get_running_loop().call_later(0.5, self._close, error.reason)

    # ---- an agent's and a connector's messages ----

    def _take(self, message: say.ToJudge) -> None:
        self._heard = time.monotonic()
        match message, self.node:
            case say.Decide(), DeviceNode(_, key):
                self._send(self._decide(message, key))
            case say.Choose(request, vnet), DeviceNode(device, _):
                self._spawn(self._choose(request, device, vnet))
            case say.Health(flows, draining), ConnectorNode():
                self.flows, self.draining = flows, draining
            case say.Holding(ids), ConnectorNode():
                self._hold(ids)
            case _, None:
                pass  # it was refused, and has not heard yet
            case _:
                raise WireError(f"{type(message).__name__} is not for this node now")

    def _decide(self, asked: say.Decide, key: bytes) -> say.Granted | say.Denied:
        now = self._authority.clock()
        decision = self._decision(asked, keys.thumbprint(key), now)
        if isinstance(decision, Refused):
            self._sessions.counters[f"denied_{decision.reason.word}"] += 1
            log.debug("flow denied", reason=decision.reason.word, detail=decision.detail, **self._who())
            return say.Denied(asked.request, decision.reason.code, decision.detail)
        self._sessions.counters["granted"] += 1
        signed = grant(decision, self._authority.issuer, now)
        tunnel = decision.tunnel
        return say.Granted(
            asked.request,
            signed.grant,
            signed.permit,
            tunnel.id,
            tunnel.name,
            tunnel.authority,
            tunnel.statement,
            decision.route.id,
            tunnel.former if time.time() < tunnel.until else b"",
        )

    async def _choose(self, request: int, device: Device, vnet: str) -> None:
        """The user's choice among the virtual networks that the administrator allowed the device."""
        try:
            if self._heard - self._chose < CHOOSE_EVERY:
                raise DeniedError(Reason.LIMIT, "choices of a virtual network in a moment")
            self._chose = self._heard
            await self._authority.repository.choose_network(device.id, vnet)
        except DeniedError as error:
            self._send(say.Denied(request, error.reason.code, error.detail))
        except AWAY as error:
            log.warning("a virtual network can't be chosen", cause=cause_of(error))
            self._send(say.Denied(request, Reason.JUDGE_AWAY.code, "its store can't be reached now"))
        else:
            log.info("virtual network chosen", vnet=vnet, **self._who())
            self._send(say.Chosen(request))
        self._flush()

    def _decision(self, asked: say.Decide, thumbprint: str, now: float) -> Decision:
        if not self._authority.follower.fresh():
            return Refused(Reason.JUDGE_AWAY, "the edge has not been able to read its store for too long")
        return decide(
            self._authority.snapshot,
            thumbprint,
            asked.protocol,
            asked.port,
            now,
            address=asked.address,
            host=asked.host,
            resolver=asked.resolver,
        )

    async def _answer(
        self, stream: MessageStream[Any, Any], query: say.Query, device: Device, answered: Callable[[], None]
    ) -> None:
        try:
            answer = await self._authority.resolver.answer(device, query.message, query.transport)
            stream.send(answer)
            stream.finish()
            answered()
        except WireError:
            self._close(Reason.PROTOCOL)
        finally:
            self._queries -= 1
        self._flush()

    # ---- what it is told ----

    def now_is(self, device: Device) -> None:
        """The device has changed, or a route: what it asks from now on is decided for what it is now."""
        if isinstance(self.node, DeviceNode):
            self.node = DeviceNode(device, self.node.key)
            self.tell_network(device)

    def tell_network(self, device: Device) -> None:
        """What the device may capture, if that is news."""
        network = self._authority.snapshot.network(device.vnet)
        told = say.Network(
            device.id,
            device.name,
            device.vnet,
            network.cidrs,
            tuple(sorted({*network.zones, *self._authority.zones})),
            self._authority.snapshot.revision,
            vnets=device.choices,
            search=self._authority.search,
        )
        if self._told is None or replace(told, revision=self._told.revision) != self._told:
            self._told = told
            self._send(told)
            self._flush()

    def tell_edges(self) -> None:
        self._send(say.Edges(self._authority.edges()))
        self._flush()

    def tell_revoked(self) -> None:
        """A connector, when it enters and when the store was read anew: what was deleted lately."""
        gone = self._authority.repository.tombstones(since=int(time.time() - REMEMBERED))
        self.say_revoked(self._authority.snapshot.epoch, tuple((one.id, one.revision) for one in gone))

    def say_revoked(self, epoch: int, entries: tuple[tuple[str, int], ...]) -> None:
        self._send(say.Revoked(epoch, entries, self._authority.follower.stale()))
        self._flush()

    def _hold(self, ids: tuple[str, ...]) -> None:
        """What the connector's flows stand on and we do not know (any more): they end."""
        now = self._authority.snapshot
        known = (now.devices_by_id, now.routes, now.tunnels)
        gone = [one for one in ids if ":" not in one and not any(one in table for table in known)]
        if gone:
            self.say_revoked(now.epoch, tuple((one, now.revision) for one in gone))

    def _send(self, message: say.ToNode) -> None:
        if self._control is None:
            return
        try:
            self._control.send(message)
        except WireError:
            self._close(Reason.PROTOCOL)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
