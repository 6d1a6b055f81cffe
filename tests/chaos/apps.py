"""Apps that use the office all the while, each in a thread of its own: streams, datagrams, idle flows.

An app opens a flow and keeps it for as long as it lives; a flow that is lost is counted, and another one opened.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

from tests.chaos.progress import Track
from tests.lab import apps
from warren.lab.host import Host
from warren.lab.services import ECHO_PORT

BLOCK = random.Random(6).randbytes(1_000_003)
"""What streams carry, again and again; its length is prime, so that no lost or doubled piece goes unseen."""
PIECE = 20_000
EVERY = 0.02
"""A piece each so many seconds: 8 Mbit/s."""
LOOK_UP_AFTER = 0.25
"""Seconds after which a thread that waits looks whether it is over."""
AGAIN_AFTER = 0.2
"""Seconds from a flow that could not be opened to the next try."""
OPENS_WITHIN = 20.0
DATAGRAMS = 100
"""A second."""
DATAGRAM = 200
PATIENCE = 10.0
IDLE = 17
"""Flows that hardly ever carry a byte: more than the agent gives to one connector before it looks for another."""


class Lost(Exception):
    """A flow that was open has ended."""


class NotOpened(Exception):
    """A flow did not come about."""


class App(ABC):
    """`destination`: as the agent's status names its flow; empty where it does not."""

    def __init__(self, name: str, laptop: Host, destination: str) -> None:
        self.track, self.laptop, self.destination = Track(name), laptop, destination
        self.over = threading.Event()
        self.again = threading.Event()
        """Close the flow, as people do, and open another one."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def name(self) -> str:
        return self.track.name

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.over.set()
        self._thread.join(PATIENCE)

    @property
    def done(self) -> bool:
        """Is this flow to be closed?"""
        return self.over.is_set() or self.again.is_set()

    def _run(self) -> None:
        while not self.over.is_set():
            self.again.clear()
            try:
                self.session()
                self.track.closed()
            except NotOpened as error:
                self.track.not_opened(str(error) or repr(error))
                self.over.wait(AGAIN_AFTER)
            except (Lost, OSError) as error:
                if not self.over.is_set():
                    self.track.lose(str(error) or repr(error))

    @abstractmethod
    def session(self) -> None:
        """One flow, until it is `done`. Raises Lost or OSError when it ends before, NotOpened."""


class Stream(App):
    """A TCP stream whose every byte is checked where it arrives. `down`: from the origin to the laptop.

    `every`: seconds from one piece to the next.
    """

    def __init__(self, laptop: Host, origin: Host, *, down: bool, every: float = EVERY) -> None:
        with origin.network():
            self._listener = socket.create_server((origin.address, 0))
        self._listener.settimeout(LOOK_UP_AFTER)
        self._address = self._listener.getsockname()
        super().__init__("stream down" if down else "stream up", laptop, f"{self._address[0]}:{self._address[1]}")
        self._down, self._every = down, every

    def stop(self) -> None:
        super().stop()
        self._listener.close()

    def session(self) -> None:
        """Two ends in one program: whoever sends does so in a thread."""
        ended = threading.Event()
        near, far = self._both_ends()
        with near, far:
            source, sink = (far, near) if self._down else (near, far)
            self.track.opened()
            sending = threading.Thread(target=self._send, args=(source, ended), daemon=True)
            sending.start()
            try:
                self._receive(sink)
            finally:
                ended.set()
                sending.join(PATIENCE)

    def _both_ends(self) -> tuple[socket.socket, socket.socket]:
        self._forget_waiting()
        try:
            with self.laptop.network():
                near = socket.create_connection(self._address, OPENS_WITHIN)
        except OSError as error:
            raise NotOpened(str(error)) from None
        try:
            self._listener.settimeout(LOOK_UP_AFTER)
            far, _ = self._listener.accept()
        except OSError as error:
            near.close()
            raise NotOpened(f"at the origin: {error}") from None
        near.settimeout(LOOK_UP_AFTER)
        far.settimeout(LOOK_UP_AFTER)
        return near, far

    def _forget_waiting(self) -> None:
        """Of an attempt that came too late for its app."""
        self._listener.setblocking(False)
        with suppress(OSError):
            while True:
                self._listener.accept()[0].close()

    def _send(self, source: socket.socket, ended: threading.Event) -> None:
        at, due = 0, time.monotonic()
        with suppress(OSError):  # the receiver says so
            while not ended.wait(max(0.0, due - time.monotonic())):
                due = max(due + self._every, time.monotonic())
                at = push(source, at, PIECE, ended)

    def _receive(self, sink: socket.socket, size: int | None = None) -> None:
        """Until it is `done`, or until the end, which comes after `size` bytes."""
        at = 0
        while not self.done:
            try:
                got = sink.recv(apps.CHUNK)
            except TimeoutError:
                continue
            if not got:
                if at == size:
                    return
                raise Lost("ended")
            self.track.mark(len(got))
            if got != piece(at, len(got)):
                self.track.spoil(len(got))
            at += len(got)


def push(source: socket.socket, at: int, size: int, ended: threading.Event) -> int:
    """Send so many bytes of the pattern; where in it that ended, which is earlier when `ended` comes."""
    until = at + size
    while at < until and not ended.is_set():
        with suppress(TimeoutError):
            at += source.send(piece(at, until - at))
    return at


def piece(at: int, size: int) -> bytes:
    """Bytes of the endless pattern; `size` is no more than `BLOCK`."""
    at %= len(BLOCK)
    return (BLOCK[at : at + size] + BLOCK[: max(0, at + size - len(BLOCK))])[:size]


class Datagrams(App):
    """UDP there and back, numbered and checked, at a known rate; the origin sees one source port, or it is lost."""

    def __init__(self, laptop: Host, origin: Host, *, rate: int = DATAGRAMS) -> None:
        with origin.network():
            self._origin = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._origin.bind((origin.address, 0))
        self._origin.settimeout(LOOK_UP_AFTER)
        self._address = self._origin.getsockname()
        super().__init__("UDP", laptop, f"{self._address[0]}:{self._address[1]}/udp")
        self._every, self._session = 1 / rate, 0
        self._sources: set[tuple[int, tuple[str, int]]] = set()
        """Sessions, and the source ports that the origin has seen in them."""
        self._serving = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        self._serving.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        self._serving.join(PATIENCE)
        self._origin.close()

    def _serve(self) -> None:
        while not self.over.is_set():
            with suppress(OSError):
                data, source = self._origin.recvfrom(2048)
                self._sources.add((int.from_bytes(data[:4], "big"), source))
                self._origin.sendto(data, source)

    def session(self) -> None:
        self._session += 1
        with self.laptop.network():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        waiting: dict[int, float] = {}
        with client:
            client.connect(self._address)
            self.track.opened()
            try:
                self._exchange(client, waiting)
            finally:
                self.track.missing.extend(waiting.values())

    def _exchange(self, client: socket.socket, waiting: dict[int, float]) -> None:
        number, due = self._session << 32, time.monotonic()
        while not self.done:
            now = time.monotonic()
            if now >= due:
                number, due = number + 1, max(due + self._every, now)
                with suppress(ConnectionRefusedError):
                    client.send(datagram(number))
                waiting[number] = now
                self.track.sent.append(now)
                self._give_up(waiting, now)
            client.settimeout(max(0.001, due - time.monotonic()))
            with suppress(TimeoutError, ConnectionRefusedError):
                self._take(client.recv(2048), waiting)
            if len([1 for session, _ in list(self._sources) if session == self._session]) > 1:
                raise Lost("the origin sees another source port")

    def _take(self, got: bytes, waiting: dict[int, float]) -> None:
        number = int.from_bytes(got[:8], "big")
        if got != datagram(number):
            self.track.spoil(len(got))
        elif waiting.pop(number, None) is not None:
            self.track.mark(len(got))

    def _give_up(self, waiting: dict[int, float], now: float) -> None:
        for number, at in list(waiting.items()):
            if now - at < PATIENCE:
                return
            del waiting[number]
            self.track.missing.append(at)


def datagram(number: int) -> bytes:
    return number.to_bytes(8, "big") + piece(number, DATAGRAM)


class Idle:
    """Flows that are open and silent; `check` has each carry a word."""

    destination_port = ECHO_PORT

    def __init__(self, laptop: Host, origin: Host) -> None:
        self.track = Track("idle flows")
        self._laptop, self._origin = laptop, origin
        self._flows: list[socket.socket] = []

    def fill(self, enough: Callable[[], bool] = lambda: True) -> None:
        """Until there are `IDLE`, and on until `enough`."""
        while len(self._flows) < IDLE or not (enough() or len(self._flows) >= 3 * IDLE):
            self._flows.append(apps.connected(self._laptop, self._origin.address, self.destination_port))

    def check(self, within: float) -> None:
        """Loses, with a count, those that do not answer within so many seconds all together."""
        word, deadline = b"are you there?", time.monotonic() + within
        for flow in list(self._flows):
            try:
                flow.settimeout(max(0.05, deadline - time.monotonic()))
                flow.sendall(word)
                got = b""
                while len(got) < len(word) and (part := flow.recv(len(word) - len(got))):
                    got += part
                if not got:
                    raise Lost("ended")
                if got != word:
                    self.track.spoil(len(word))
            except (OSError, Lost) as error:
                self.track.lose(str(error) or repr(error))
                self._flows.remove(flow)
                flow.close()

    def close(self) -> None:
        for flow in self._flows:
            flow.close()
        self._flows.clear()
