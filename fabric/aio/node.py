"""One node towards one edge: attachment and session on one connection, two circuit sockets, and coming back for ever.

The connection is made anew with jittered back-off when it ends; slots and circuits outlive it (the new attachment takes
them over by id, if the edge still is the same process), and so do the peer connections on them. `Node` offers
what the agent's journeys ask for, as coroutines, and hands a connector's owner what the switch offers.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from warren.fabric.aio.asked import ANSWER_TIME, CIRCUIT_TIME, DOUBT, Asked
from warren.fabric.aio.call import ALPN, LIMITS, Call, why_over
from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.aio.doubt import Doubt, Look
from warren.fabric.aio.judge import Judge
from warren.fabric.aio.lookup import Whereabouts
from warren.fabric.aio.owner import Identity, Owner
from warren.fabric.aio.standstill import Standstill
from warren.fabric.core import frames
from warren.fabric.core import session as core
from warren.fabric.core.attachment import Attachment, AttachmentClosed, AttachmentEvent
from warren.fabric.core.backoff import Backoff
from warren.fabric.core.engine import Address, ClientConfig, Engine, PathChange
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.link import LinkClosed, LinkEvent, LinkReady
from warren.fabric.core.messages import attachment as switch_says
from warren.fabric.core.messages.attachment import Circuit
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates
from warren.fabric.identity.statements import Edge

log = structlog.get_logger()

BACKOFF = (0.25, 15.0)
"""Seconds between attempts, first and longest, with jitter: five hundred nodes that come back must not come at once."""
AT_ONCE = 0.1
"""Seconds, at most, before that to an edge that was restarted: each node finds that out at a time of its own."""
UNANSWERED = 2.5
"""Seconds without an answer to a connector's beats, after which it looks whether the edge is the same process: two were
lost, and the third is late. One without circuits sends nothing else, and to its engine the edge is there for ten."""
WANTED = 1.0
"""Seconds between attempts, at least, that are made because somebody asks."""
REFUSALS = frozenset({Reason.WRONG_TUNNEL, Reason.BAD_PROOF, Reason.LIMIT})
"""What an edge says that does not take what a node shows."""


class Node:
    """Keeps an attachment and a session with one edge."""

    def __init__(self, engine: Engine, identity: Identity, edge: Edge, owner: Owner, *, mark: int = 0) -> None:
        self.edge = edge
        self.boot = identity.boot
        self.state = "connecting"
        self.reason = ""
        """Why it is not connected, in words."""
        self._said: deque[str] = deque(maxlen=4)
        """Why it is not connected, as it was logged: each once, not at each attempt."""
        self.refused: Reason | None = None
        """Why the edge has turned us away, if it has: its last word."""
        self._away_for = Reason.JUDGE_AWAY
        self.sockets: list[CircuitSocket] = []
        self._engine = engine
        self.shown = identity
        """What the present attachment was made with."""
        self._identity = identity
        self._owner = owner
        self._mark = mark
        self._where = Whereabouts(edge, mark)
        self._loop = asyncio.get_running_loop()
        self._call: Call | None = None
        self._attachment: Attachment | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._circuits = Asked[Circuit]("circuits asked for", self.flush, self.doubt, 6 * DOUBT, CIRCUIT_TIME)
        self.judge = Judge(self._judge_says, lambda: self.reason, self.flush, self.doubt)
        self._forgotten: list[switch_says.SlotGiven] = []
        self._attached = self._entered = False
        self._task: asyncio.Task[None] | None = None
        self._doubt = Doubt(self._silent, self._spoke, self._is_over)
        self._standstill: Standstill | None = None
        self._closing = False
        self._at_once = asyncio.Event()
        """The edge is there, and is connected to again without waiting."""
        self._silent_at = -math.inf
        """When it was last found not to answer."""
        self._wanted_at = -math.inf
        self._settled = asyncio.Event()
        """It was connected, or an attempt has failed."""
        self._held = False
        """A successor is taking the slots over: nothing is done about a connection that ends."""
        self._lent = False
        """The slots are another node's still."""

    # ---- life ----

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())
        # An edge forgets who says nothing for the idle time, and our own timer begins anew with what we send now.
        self._standstill = Standstill(self.doubt, LIMITS[self._identity.role].idle_timeout / 2)

    async def _run(self) -> None:
        backoff = Backoff(*BACKOFF, random=random.random)
        while True:
            try:
                if not self._held:
                    await self._connect(backoff)
            except OSError as error:
                self._away(Reason.JUDGE_AWAY, f"{self.edge}: {error.strerror or error}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._at_once.wait()
                    await asyncio.sleep(random.random() * AT_ONCE)  # noqa: S311 - no secret
            self._at_once.clear()

    async def _connect(self, backoff: Backoff) -> None:
        """One connection, from its first packet to its end."""
        address = await self._where.look_up(backoff.tries)
        self._place(address)
        self._attached = self._entered = False
        self._ended = self._loop.create_future()
        self._call = call = Call(
            self._engine,
            self._config(),
            address,
            self._link_event,
            self._drain,
            mark=self._mark,
            timeout=self._timeout,
            timed_out=self._timed_out,
        )
        try:
            self._attachment = self._attach(call)
            call.start()
            await self._ended
            if self._entered:
                backoff.reset()
        finally:
            self._lost()
            call.close(Reason.CANCELLED)

    def _config(self) -> ClientConfig:
        root = certificates.pem(self._identity.network)
        return ClientConfig(ALPN, self.edge.server_name, root, LIMITS[self._identity.role])

    def _place(self, address: Address) -> None:
        """Circuit sockets towards this address. Where it is another one, they keep their slots and circuits: the edge
        may be the same, reached over another family."""
        for circuit_socket in self.sockets:
            if circuit_socket.switch != address:
                circuit_socket.move(address)
        if not self.sockets:
            listens = self._identity.role == "connector"
            self.sockets = [CircuitSocket(index, address, self, self._mark, listens=listens) for index in (0, 1)]

    def roam(self) -> None:
        """This host's addresses or routes may have changed: if the way to the edge has, everything goes on from there,
        or over the other family."""
        if not self._held and self._where.moved() and self._where.address is not None:
            log.info("the way to the edge has changed", edge=str(self.edge))
            for circuit_socket in self.sockets:
                circuit_socket.move(self._where.address)
            if self._call is not None:
                self._call.move(self._where.address)

    def swallows(self, circuit: bytes) -> None:
        """Large packets vanish on a circuit: its other end binds, too."""
        if self._attachment is not None:
            self._attachment.suspect(circuit, self._loop.time())
            self.flush()

    def doubt(self) -> None:
        """The edge may be another process by now, or not be there: the owner hears `silent` in that case. If it is
        another one, or took this node for gone while its host was suspended, the connection is dropped and made anew
        (doubt.py). Where somebody is asking already, he asks again at once: a switch that says that it does not know us
        is there."""
        if self._call is None:
            self._at_once.set()
        elif self.state != "connected":
            self._call.probe()
        elif self._attachment is not None and (address := self._where.address) is not None:
            make = partial(Look, self._engine, self._config(), address, self._mark)
            self._doubt.look(make, self._call, self._attachment.boot)

    def wanted(self) -> None:
        """Somebody asks, and no edge is connected: the pause is over, and what is under way is said again. Once a
        second, however many ask; not where the edge is there, and turns us away."""
        away = self.state != "connected" and self._away_for is Reason.JUDGE_AWAY
        if away and self._loop.time() >= self._wanted_at + WANTED:
            self._wanted_at = self._loop.time()
            self.doubt()

    def moved(self) -> None:
        """Our address has changed: the attachment's, too."""
        if self._attachment is not None:
            self._attachment.beat(self._loop.time())
            self.flush()

    def _spoke(self) -> None:
        self._silent_at = -math.inf

    def _is_over(self, first: Call, why: str) -> None:
        if first is self._call and not self._ended.done():
            self._at_once.set()
            self._away(Reason.JUDGE_AWAY, why)
            self._ended.set_result(None)

    def _silent(self) -> None:
        self._silent_at = self._loop.time()
        self._owner.silent(self)

    @property
    def answers(self) -> bool:
        """It is connected, and nothing says that its edge does not answer: not since anything came from there."""
        heard = max([self._call.heard if self._call is not None else 0.0, *(one.heard for one in self.sockets)])
        return self.state == "connected" and heard > self._silent_at

    def _lost(self) -> None:
        """The connection is over: whoever waits for an answer hears so; slots and circuits stay."""
        for circuit_socket in () if self._held or self._lent else self.sockets:
            circuit_socket.attachment_lost()
        self.judge.lose()
        self._circuits.lose()
        self._attachment = self._call = None

    # ---- another identity ----

    async def renewed(self, identity: Identity) -> Node | Reason:
        """The node that has taken over, as `identity`, with the same key: slots, circuits and boot id are its own now,
        and no flow notices. A reason: why the edge did not take it; then this one goes on as before. Where there is no
        edge to ask, this one shows the new identity as soon as there is."""
        if self.state != "connected" or self._where.address is None:
            self._identity = identity
            return self
        successor = Node(self._engine, identity, self.edge, self._owner, mark=self._mark)
        successor.boot, successor.sockets = self.boot, self.sockets
        successor._lent, self._held = True, True
        try:
            successor.start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIME):
                    await successor._settled.wait()
            if successor.state == "connected":
                await self._hand_over(successor)
                return successor
        finally:
            if successor._lent:
                await self._take_back(successor)
        if successor.refused is not None:
            return successor.refused
        self._identity = identity
        return self

    async def _hand_over(self, successor: Node) -> None:
        successor._lent = False
        for circuit_socket in self.sockets:
            circuit_socket.keeper = successor
        self.sockets = []
        await self.close()

    async def _take_back(self, successor: Node) -> None:
        """It came to nothing. Our own attachment lives, unless the switch had taken the successor's already."""
        successor.sockets = []
        await successor.close()
        self._held = False
        if self._call is None:
            self.state = "connecting"
            for circuit_socket in self.sockets:
                circuit_socket.attachment_lost()

    def _away(self, reason: Reason, detail: str) -> None:
        if self._held:
            return  # its successor tells how it is
        self._settled.set()
        self.refused = reason if reason in REFUSALS else None
        self._away_for = reason
        if self.state != "connecting" or detail not in self._said:
            tell = log.warning if reason in REFUSALS else log.info  # a refusal stays one until somebody acts
            tell("edge away", edge=str(self.edge), reason=reason.word, detail=detail)
            self._said.append(detail)
        self.state, self.reason = "connecting", detail
        self._owner.disconnected(reason, detail)
        self._silent()

    async def close(self) -> None:
        """Says goodbye and stops."""
        self._closing = True
        if self._standstill is not None:
            self._standstill.close()
        await self._doubt.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for circuit_socket in self.sockets:
            circuit_socket.close()

    def back(self) -> None:
        """The way works again, and the engine's own next packet may be seconds away."""
        if self._call is not None:
            self._call.probe()

    def flush(self) -> None:
        if self._call is not None:
            self._call.flush()

    # ---- the link ----

    def _link_event(self, event: LinkEvent) -> None:
        if self._attachment is not None:
            self._attachment.handle_link(event, self._loop.time())
        match event:
            case LinkReady():
                assert self._call is not None
                self.judge.begin(self._call.link, event, self.shown, self.boot)
            case LinkClosed(code, detail, _) if not (self._ended.done() or self._closing):
                self._away(*why_over(code, detail))
                self._ended.set_result(None)

    def _attach(self, call: Call) -> Attachment:
        """Claims the slots of before: the switch gives them back if it still is the same process."""
        who = self.shown = self._identity
        slots = tuple(s.slot.id for s in self.sockets if s.slot is not None)
        return Attachment(call.link, who.attaching(self.boot), who.attach_signature, self._loop.time(), slots)

    def _drain(self) -> bool:
        return self._attachment_events() | self.judge.drain()

    def _timeout(self) -> float | None:
        due = self._attachment.poll_timeout() if self._attachment is not None else None
        return due[0] if due is not None else None

    def _timed_out(self, now: float) -> None:
        if self._attachment is not None:
            self._attachment.handle_timeout(now)

    # ---- the attachment ----

    def _attachment_events(self) -> bool:
        busy = False
        while self._attachment is not None and (event := self._attachment.poll_event()) is not None:
            busy = True
            self._attachment_event(event)
        return busy

    def _attachment_event(self, event: AttachmentEvent) -> None:
        match event:
            case switch_says.Attached(slots=slots):
                self._forgotten = [s for s in slots if self.sockets[s.index].given(s.id, s.key)]
                for given in slots:
                    if given not in self._forgotten and given.circuits is not None:
                        self._drop_others(self.sockets[given.index], given.circuits)
                self._attached = True
                self._look_ready()
            case switch_says.Rejected(reason):
                self._away(Reason.of(reason), Reason.of(reason).text)
            case switch_says.Circuit(request):
                self._circuits.settle(request, event)
            case switch_says.NoCircuit(request, reason):
                self._circuits.settle(request, None, Reason.of(reason))
            case switch_says.Offer(index=index):
                self._owner.offered(event, self.sockets[index], self.shown)
            case switch_says.Drop(circuit):
                for circuit_socket in self.sockets:
                    self._owner.dropped(circuit, circuit_socket)
            case switch_says.Resized(circuit, size):
                self._on_path(circuit, lambda path: path.resize(frames.header(circuit), size))
            case switch_says.FarMoved(circuit, moved):
                kind = PathChange.MOVED if moved else PathChange.REBOUND
                self._on_path(circuit, lambda path: path.changed(frames.header(circuit), kind))
            case switch_says.Suspect(circuit):
                for circuit_socket in self.sockets:
                    if circuit_socket.path(circuit) is not None:
                        circuit_socket.suspect()
            case switch_says.FarAway(circuit):
                for circuit_socket in self.sockets:
                    self._owner.away(circuit, circuit_socket)
            case AttachmentClosed():
                pass  # the link tells of its end itself

    def _drop_others(self, circuit_socket: CircuitSocket, known: tuple[bytes, ...]) -> None:
        """What the switch said of their end went to the attachment before, and may have been lost with it."""
        for circuit in circuit_socket.circuits:
            if circuit not in known:
                self._owner.dropped(circuit, circuit_socket)

    def _on_path(self, circuit: bytes, do: Callable[..., None]) -> None:
        for circuit_socket in self.sockets:
            path = circuit_socket.path(circuit)
            if path is not None:
                do(path)

    def _look_ready(self) -> None:
        if self._attached and self._entered and self.state != "connected":
            self.state, self.reason, self.refused, self._silent_at = "connected", "", None, -math.inf
            self._said.clear()
            self._settled.set()
            log.info("edge connected", edge=str(self.edge))
            self._owner.connected()
            for given in self._forgotten:
                self._owner.forgotten(self.sockets[given.index])
            self._forgotten = []

    def _judge_says(self, event: core.SessionEvent) -> None:
        match event:
            case core.SessionReady(welcome):
                self._entered = True
                if welcome is not None:
                    self._owner.welcomed(welcome)
                self._look_ready()
            case core.SessionRefused(reason, detail):
                self._away(reason, f"{reason.text}{': ' + detail if detail else ''}")
            case core.NetworkChanged(network):
                self._owner.network(network)
            case core.EdgesTold(signed):
                self._owner.edges(signed)
            case core.RevocationsTold(revoked):
                self._owner.revoked(revoked, self)

    # ---- what the owner asks and says ----

    async def ask(
        self,
        index: int,
        peer: bytes,
        permit: bytes,
        tried: tuple[bytes, ...],
        boot: bytes = b"",
        *,
        patient: bool = True,
    ) -> tuple[Circuit, CircuitSocket]:
        """A circuit for a peer connection. Raises DeniedError."""
        if self._attachment is None or self.state != "connected":
            raise DeniedError(Reason.JUDGE_AWAY, self.reason)
        request = self._attachment.ask(index, peer, permit, self._loop.time(), boot=boot, tried=tried, patient=patient)
        return await self._circuits.answer(request), self.sockets[index]

    def health(self, flows: int, draining: bool) -> None:
        """A beat, once a second. Where several have not been answered the edge may be another process by now."""
        call = self._call
        said = call is not None and self.judge.health(flows, draining)
        if said and call is not None and self._loop.time() - call.answered > UNANSWERED:
            self.doubt()

    def drop(self, circuit: bytes, reason: Reason) -> None:
        """Ends a circuit."""
        if self._attachment is not None:
            self._attachment.drop(circuit, reason, self._loop.time())
            self.flush()
