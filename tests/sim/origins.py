"""Both ends of flows in the simulated world: the app's at the agent, the origin's behind the connector.

Each direction carries one endless known stream (`pattern`), so whoever reads knows what has to come next.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
import socket
from collections import deque
from typing import Any

from msgspec.structs import replace

from tests.agent_side import AgentSide
from tests.sim.process import Descriptor, Process
from warren.agent.opening import Opening, Wanted
from warren.fabric.aio.pump import TCP_CLOSE
from warren.fabric.core.credit import LARGEST_WINDOW
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.reasons import Reason

PERIOD = 65_521
"""A prime: a stream that lost or doubled a packet never fits again."""
ORIGIN_BUFFER = 64 << 10
"""Bytes that wait at an origin that does not read."""


class Direction:
    """One direction of one flow: how much was given in, how much came out, and whether it was right."""

    def __init__(self, name: str) -> None:
        block = random.Random(name).randbytes(PERIOD)
        self._twice = block + block
        self.offered = 0
        """Bytes that the sender was told to send."""
        self.given = 0
        """Of them, bytes that it gave to the product."""
        self.got = 0
        self.wrong = ""

    def take(self, limit: int) -> bytes:
        """The next bytes to be sent."""
        size = min(limit, self.offered - self.given, PERIOD)
        start = self.given % PERIOD
        return self._twice[start : start + size]

    def arrived(self, data: Any) -> None:
        """What came out at the other end."""
        view = memoryview(data)
        while view:
            start = self.got % PERIOD
            size = min(len(view), PERIOD)
            if bytes(view[:size]) != self._twice[start : start + size] and not self.wrong:
                self.wrong = f"other bytes than were sent within {size} from {self.got}"
            self.got += size
            view = view[size:]
        if self.got > self.given and not self.wrong:
            self.wrong = f"{self.got} bytes came of {self.given}"


class TcpOrigin(Descriptor):
    """The connector's socket to an origin, and the origin behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = Direction(""), Direction("")
        """The flow's, once this is the connector that carries it."""
        self.paused = False
        self.ended = self.was_reset = False
        """What the origin did."""
        self.saw: str | None = None
        """What it saw of the app: "end", "reset"."""
        self._waiting = bytearray()
        self._linger = False

    # ---- the origin's side ----

    def say(self) -> None:
        """There is more to send, or something has ended."""
        self.poll()

    def pause(self, paused: bool) -> None:
        self.paused = paused
        if not paused and self._waiting:
            self.up.arrived(self._waiting)
            self._waiting.clear()
        self.poll()

    # ---- the socket ----

    def readable(self) -> bool:
        return self.was_reset or self.down.offered > self.down.given or self.ended

    def writable(self) -> bool:
        return len(self._waiting) < ORIGIN_BUFFER

    def getpeername(self) -> tuple[str, int]:
        return "10.0.0.1", 1

    def getsockopt(self, *words: Any) -> bytes:
        """TCP_INFO's first byte, the state. What waits to be delivered nobody can be asked: it is at once."""
        return bytes([TCP_CLOSE if self.was_reset else 1])

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._linger |= option == socket.SO_LINGER

    def recv_into(self, buffer: Any) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def recv(self, size: int) -> bytes:
        if self.was_reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset by the origin")
        data = self.down.take(size)
        if not data and not self.ended:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        self.down.given += len(data)
        return data

    def send(self, data: Any) -> int:
        if self.was_reset:
            raise BrokenPipeError(errno.EPIPE, "reset by the origin")
        if not self.paused:
            self.up.arrived(data)
            return len(data)
        size = min(len(data), ORIGIN_BUFFER - len(self._waiting))
        if size <= 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        self._waiting += data[:size]
        return size

    def shutdown(self, how: int) -> None:
        self.saw = self.saw or "end"

    def close(self) -> None:
        if self._fd >= 0:
            self.saw = "reset" if self._linger or self.saw is None else self.saw
        super().close()


class Answering(Descriptor):
    """The connector's socket to an origin that answers each datagram at once."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[bytes] = deque(maxlen=256)
        self.got = 0

    def readable(self) -> bool:
        return bool(self._waiting)

    def writable(self) -> bool:
        return True

    def answers(self, data: bytes) -> None:
        self.got += 1
        self._waiting.append(data)
        self.poll()

    def recv(self, size: int) -> bytes:
        if not self._waiting:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        return self._waiting.popleft()


class UdpOrigin(Answering):
    """With each datagram itself."""

    def send(self, data: Any) -> int:
        self.answers(bytes(data))
        return len(data)


class EchoOrigin(Answering):
    """To ping (icmp(7)), as a host does."""

    def sendto(self, message: bytes, to: Any) -> None:
        self.answers(b"\0" + message[1:])

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        return self.recv(size), ("10.0.0.1", 0)

    def recvmsg(self, *words: Any) -> Any:
        raise BlockingIOError(errno.EAGAIN, "no error")


class App:
    """One flow as the agent's side sees it, and what the model knows of it. Owner of the flow (agent.peers)."""

    def __init__(self, process: Process, number: int, protocol: str) -> None:
        self.process, self.number, self.protocol = process, number, protocol
        self.up, self.down = Direction(f"up{number}"), Direction(f"down{number}")
        self.flow: Flow | None = None
        self.opening: Opening | None = None
        self.origin: TcpOrigin | UdpOrigin | None = None
        self.dials: dict[bytes, tuple[Process, TcpOrigin | UdpOrigin]] = {}
        """By the boot id of the connector that dialled: an opening may be tried at several."""
        self.connector: Process | None = None
        """Of them, the one that carries it."""
        self.route = ""
        """Id of the route that it was granted by."""
        self.dialled = 0.0
        self.refusal: Reason | None = None
        self.used = process.network.now
        """When a datagram came back: it went both ways."""
        self.paused = False
        self.ending: str | None = None
        """What the app did: "end", "reset"."""
        self.saw: str | None = None
        """What it saw of the origin."""
        self.sent: dict[bytes, bytes] = {}
        """Datagrams by their first 8 bytes, with the digest of the rest."""
        self.answers = 0
        self.fresh = 0
        """The first datagram whose answer counts."""
        self.wrong = ""
        self.most_buffered = 0

    # ---- what agent.peers tells ----

    def opened(self, flow: Flow, address: str) -> None:
        self.flow = flow
        assert self.opening is not None and self.opening.state is not None
        self.connector, self.origin = self.dials[self.opening.state.boot]
        self.dialled = self.process.time()
        if isinstance(self.origin, TcpOrigin):
            self.origin.up, self.origin.down = self.up, self.down
        self.writable(flow)

    def refused(self, reason: Reason, detail: str) -> None:
        self.refusal = reason

    def readable(self, flow: Flow) -> None:
        self.most_buffered = max(self.most_buffered, flow.buffered)
        while not self.paused and (data := flow.read(1 << 16)):
            self.down.arrived(data)
            flow.took(len(data), self.process.time())
        if flow.ended is not None and self.saw != "reset":
            self.saw = flow.ended
            if self.saw == "reset":
                flow.reset()
            self._look_over()
        self.flush()

    def writable(self, flow: Flow) -> None:
        while self.ending != "reset" and (data := self.up.take(1 << 16)):
            taken = flow.write(data)
            self.up.given += taken
            if taken < len(data):
                break
        if self.ending == "end" and flow.wrote is None and self.up.given == self.up.offered:
            flow.end()
            self._look_over()
        self.flush()

    def datagram(self, payload: bytes) -> None:
        known = self.sent.get(payload[:8])
        if known != hashlib.sha256(payload).digest():
            self.wrong = "a datagram that was not sent"
        self.answers += int.from_bytes(payload[:8], "big") >= self.fresh
        self.used = self.process.time()

    def unreachable(self, reason: Reason) -> None:
        self.wrong = "its origin is said to be unreachable"

    # ---- what the app does ----

    def send(self, size: int) -> None:
        if self.ending is not None:
            return
        self.up.offered += size
        if self.flow is not None and self.saw != "reset":
            self.writable(self.flow)

    def send_datagram(self, size: int) -> None:
        if self.opening is None or self.flow is None:
            return
        name = len(self.sent).to_bytes(8, "big")
        payload = name + random.Random(self.number * 1000 + len(self.sent)).randbytes(size)
        self.sent[name] = hashlib.sha256(payload).digest()
        self.opening.send_datagram(payload)
        self.flush()

    def pause(self, paused: bool) -> None:
        self.paused = paused
        if self.flow is not None and not paused:
            self.readable(self.flow)

    def end(self, how: str) -> None:
        if self.ending == "reset" or (self.ending == "end" and how == "end"):
            return
        self.ending = how
        if self.flow is None:
            if self.opening is not None:
                self.opening.cancel()
        elif how == "reset":
            self.flow.reset()
            self._look_over()
            self.flush()
        else:
            self.writable(self.flow)

    def _look_over(self) -> None:
        both = self.saw is not None and self.flow is not None and self.flow.wrote is not None
        if self.opening is not None and (both or "reset" in (self.saw, self.ending)):
            self.opening.settled()

    def flush(self) -> None:
        if self.opening is not None:
            self.opening.flush()

    # ---- what the model asks ----

    @property
    def over(self) -> bool:
        """Refused, given up, reset, or ended both ways."""
        if self.refusal is not None or "reset" in (self.saw, self.ending):
            return True
        return self.ending is not None and (self.flow is None or self.saw is not None)

    @property
    def window(self) -> int:
        """Bytes that may wait for an app that does not read."""
        return LARGEST_WINDOW

    async def open(self, agent: AgentSide, message: Open) -> None:
        """Asks the judge, then the connector."""
        try:
            granted = await agent.switchboard.decide(self.protocol, message.port, address=message.address)
        except (DeniedError, asyncio.CancelledError) as error:
            self.refusal = getattr(error, "reason", Reason.CANCELLED)
            return
        self.route = granted.route
        message = replace(message, grant=granted.grant)
        self.opening = agent.peers.open(Wanted(granted, message, self))
