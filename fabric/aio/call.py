"""A QUIC connection that we make: a socket of its own, the link on it, and the families that ride on the link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from warren.fabric.aio.drive import Drive
from warren.fabric.aio.lookup import any_address
from warren.fabric.aio.udp import UdpSocket
from warren.fabric.core.engine import Address, Batch, ClientConfig, Engine, Limits, PathChange
from warren.fabric.core.errors import WireError
from warren.fabric.core.link import Link, LinkEvent
from warren.fabric.core.reasons import TLS_ALERTS, Reason

ALPN = "warren-attach/1"
LIMITS = {
    "agent": Limits(idle_timeout=75.0, streams=128, stream_window=1 << 20, connection_window=4 << 20),
    "connector": Limits(idle_timeout=10.0, streams=128, stream_window=1 << 20, connection_window=4 << 20),
}
"""Idle: three missed beats (20 s and 1 s), with room for a slow path."""
NUDGE_EVERY, NUDGE_SHARE = 0.5, 20
"""Seconds between two first packets, and at least this part of the time that they have gone unanswered."""

PROBES, PROBE_TIME = 5, 0.2
"""How often a connection is probed before it counts as lost, and the least seconds for each answer."""


class Call:
    """One connection to one address, from the first packet to its end."""

    def __init__(
        self,
        engine: Engine,
        config: ClientConfig,
        address: Address,
        handle: Callable[[LinkEvent], None],
        drain: Callable[[], bool],
        *,
        mark: int = 0,
        timeout: Callable[[], float | None] = lambda: None,
        timed_out: Callable[[float], None] = lambda now: None,
    ) -> None:
        """`handle`: every event of the link. `drain`: events of the families on it; whether there were any.
        `timeout`, `timed_out`: their timer. A WireError raised by any of them closes the connection."""
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._mark = mark
        self._handle = handle
        self._families = drain
        self.dropped = 0
        self.heard = 0.0
        """When anything came last, by the loop's clock."""
        self.answered = 0.0
        """When anything genuine came last."""
        self._began = 0.0
        self._nudge: asyncio.TimerHandle | None = None
        connection = engine.connect(config, self._loop.time())
        self.link = Link(connection)
        self._udp = UdpSocket(self, any_address(address), mark=mark)
        self._drive = Drive(connection, b"", self._drain, self._send, timeout, timed_out)

    def start(self) -> None:
        """Sends the first packet, and again and again until something comes: it may be lost, or nobody be there yet,
        and the engine's own next one is soon many seconds away."""
        self._began = self._loop.time()
        self._drive.flush()
        self._nudge_later()

    def _nudge_later(self) -> None:
        wait = max(NUDGE_EVERY, (self._loop.time() - self._began) / NUDGE_SHARE)
        self._nudge = self._loop.call_later(wait, self._nudge_now)

    def _nudge_now(self) -> None:
        if not self.heard and not self._drive.closed:
            self.probe()
            self._nudge_later()

    def flush(self) -> None:
        """After something was said by a family."""
        if not self._drive.closed:
            self._drive.flush()

    def move(self, address: Address) -> None:
        """This host's way there has changed, or it is reached at another address now. The connection goes on: the far
        end sees a client that migrates."""
        if self._drive.closed:
            return
        if address != self._address:
            self._udp.close()
            self._address, self._udp = address, UdpSocket(self, any_address(address), mark=self._mark)
        if self.link.connection.sampled():
            self.link.connection.path_changed(self._loop.time(), PathChange.MOVED)
        self.flush()

    async def answers(self) -> bool:
        """Whether anything genuine comes when the far end is asked."""
        connection, asked = self.link.connection, self._loop.time()
        for _ in range(PROBES):
            connection.probe(self._loop.time())
            self.flush()
            await asyncio.sleep(max(PROBE_TIME, connection.pto()))
            if self.answered > asked:
                return True
        return False

    def probe(self) -> None:
        """What is in flight, if anything is, once more, now."""
        if not self._drive.closed and self.link.connection.in_flight():
            self.link.connection.probe(self._loop.time())
            self._drive.flush()

    def close(self, reason: Reason) -> None:
        """Ends the connection, saying why, and closes its socket."""
        if self._drive.closed:
            return
        self.link.connection.close(reason.close_code, reason.word, self._loop.time())
        self._drive.flush()
        self.end()

    def end(self) -> None:
        """Closes the socket: the connection is over."""
        if self._nudge is not None:
            self._nudge.cancel()
        self._drive.close()
        self._udp.close()
        self._loop.call_soon(self._let_go)  # the last events may be on their way just now

    def _let_go(self) -> None:
        self._handle, self._families = lambda event: None, lambda: False

    # ---- the socket's ----

    def handle_buffer(self, buffer: bytes, stride: int, address: Address) -> None:
        if address != self._address:
            self.dropped += 1
            return
        self.heard = self._loop.time()
        if self._drive.receive(buffer, stride).authenticated:
            self.answered = self.heard

    def handle_received(self) -> None:
        self.flush()

    def handle_writable(self) -> None:
        self.flush()

    def _send(self, batch: Batch) -> bool:
        return self._udp.send(batch, self._address)

    def _drain(self, now: float) -> bool:
        busy = False
        try:
            self.link.handle_connection(now)
            while (event := self.link.poll_event()) is not None:
                busy = True
                self._handle(event)
            busy |= self._families()
        except WireError as error:
            self.link.connection.close(Reason.PROTOCOL.close_code, str(error)[:200], now)
            busy = True
        return busy


def why_over(code: int, detail: str) -> tuple[Reason, str]:
    """Why a link is over, and what status says of it: in words about the edge, where the code speaks of an origin."""
    if code in TLS_ALERTS:
        return Reason.BAD_PROOF, f"its certificate is not of this network ({detail})"
    if code in (0, Reason.TIMED_OUT.close_code):
        return Reason.JUDGE_AWAY, "it does not answer: is UDP to it open, and does it run?"
    reason = Reason.of_close(code)
    return reason, detail or reason.text
