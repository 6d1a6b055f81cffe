"""A program on a simulated host: the real asyncio shells on a loop whose clock and sockets are the network's.

    process = Process(net, host)
    process.call_soon(start)        # runs as if `process` were the running loop
    process.freeze(); process.thaw(); process.kill()

Every callback of the loop is an event of the network. A frozen process does nothing (SIGSTOP): what would have run
waits, what arrives waits in its sockets' buffers. A killed one (SIGKILL) never runs again. What a callback raises is
kept in `faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any, Protocol

from tests.sim.network import Address, Host, Network
from warren.fabric.aio.udp import SOL_UDP, UDP_GRO, UDP_SEGMENT

KERNEL_BUFFER = 1 << 20
"""Bytes that wait in a socket for a process that does not read."""
JOINED = 64
"""Datagrams of one source and length that the kernel joins (GRO)."""
_FIRST_DESCRIPTOR = 1 << 20
_descriptors = count(_FIRST_DESCRIPTOR)


class Source(Protocol):
    """Something that a loop watches by its descriptor."""

    def readable(self) -> bool: ...

    def writable(self) -> bool: ...


class Process(asyncio.AbstractEventLoop):
    """An event loop on the network's clock. Only what the shells use of one is here."""

    def __init__(self, network: Network, host: Host, name: str) -> None:
        self.network, self.host, self.name = network, host, name
        self.alive, self.frozen = True, False
        self.faults: list[str] = []
        self.sources: dict[int, Source] = {}
        self._held: list[asyncio.Handle] = []
        self._readers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._writers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._queued: set[tuple[int, bool]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    # ---- signals ----

    def freeze(self) -> None:
        """It does nothing until `thaw`."""
        self.frozen = True

    def thaw(self) -> None:
        """It goes on with everything that was due meanwhile, in the order in which it fell due."""
        self.frozen = False
        held, self._held = self._held, []
        for handle in held:
            self.network.after(0.0, self._run, handle)

    def kill(self) -> None:
        """It never runs again; its sockets are closed as the kernel does."""
        self.alive = False
        for source in list(self.sources.values()):
            source.close()  # type: ignore[attr-defined]

    def bury(self) -> None:
        """When the simulation is over: its coroutines end here, and not whenever they are collected."""
        self.alive = False
        asyncio._set_running_loop(self)
        try:
            while self._tasks:
                task = self._tasks.pop()
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(Exception):
                    task.get_coro().close()  # type: ignore[union-attr]
        finally:
            asyncio._set_running_loop(None)

    # ---- callbacks ----

    def time(self) -> float:
        return self.network.now

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled() or not self.alive:
            return
        if self.frozen:
            self._held.append(handle)
            return
        asyncio._set_running_loop(self)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.network.after(0.0, self._run, handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.network.at(when, self._run, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is skipped when its time comes

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **words: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self, **words)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.alive:
            self.faults.append(f"{self.name}: {context.get('message')}: {error!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    async def getaddrinfo(self, host: Any, port: Any, **words: Any) -> list[Any]:  # type: ignore[override]
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (host, port))]

    # ---- descriptors: level-triggered, as a selector has it ----

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self._readers[fd] = callback, args
        self.poll(fd)

    def remove_reader(self, fd: Any) -> bool:
        return self._readers.pop(fd, None) is not None

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self._writers[fd] = callback, args
        self.poll(fd)

    def remove_writer(self, fd: Any) -> bool:
        return self._writers.pop(fd, None) is not None

    def poll(self, fd: int) -> None:
        """Something may have changed at this descriptor."""
        source = self.sources.get(fd)
        if source is None:
            return
        for writing, watched in ((False, self._readers), (True, self._writers)):
            ready = source.writable() if writing else source.readable()
            if fd in watched and ready and (fd, writing) not in self._queued:
                self._queued.add((fd, writing))
                self.call_soon(self._call, fd, writing)

    def _call(self, fd: int, writing: bool) -> None:
        self._queued.discard((fd, writing))
        found = (self._writers if writing else self._readers).get(fd)
        if found is not None:
            found[0](*found[1])
            self.poll(fd)


def running() -> Process:
    """The process whose callback runs now."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Process)
    return loop


class Descriptor:
    """What every socket of a process has."""

    def __init__(self) -> None:
        self.process = running()
        self._fd = next(_descriptors)
        self.process.sources[self._fd] = self  # type: ignore[assignment]

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        self.process.sources.pop(self._fd, None)
        self._fd = -1

    def setsockopt(self, *words: Any) -> None:
        pass

    def setblocking(self, flag: bool) -> None:
        pass

    def poll(self) -> None:
        """Tells the loop that something has changed."""
        if self._fd >= 0:
            self.process.poll(self._fd)


class UdpPort(Descriptor):
    """A UDP socket, with GSO and GRO."""

    def __init__(self, bind: Address, mark: int = 0, *, tos: bool = False) -> None:
        super().__init__()
        self._waiting: deque[tuple[bytes, Address]] = deque()
        self._bytes = 0
        self.overflowed = 0
        self._socket = self.process.host.bind(bind[1], self._arrived)

    def readable(self) -> bool:
        return bool(self._waiting)

    def writable(self) -> bool:
        return True

    def getsockname(self) -> Address:
        return self._socket.address

    def close(self) -> None:
        if self._fd >= 0:
            self._socket.close()
        super().close()

    def _arrived(self, data: bytes, source: Address) -> None:
        if self._bytes + len(data) > KERNEL_BUFFER:
            self.overflowed += 1
            return
        self._waiting.append((data, source))
        self._bytes += len(data)
        self.poll()

    def recvmsg(self, size: int, ancillary: int) -> tuple[bytes, list[Any], int, Address]:
        if not self._waiting:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        first, source = self._waiting.popleft()
        parts, stride = [first], len(first)
        while len(parts[-1]) == stride and len(parts) < JOINED and self._waiting:
            data, other = self._waiting[0]
            if other != source or len(data) > stride or (len(parts) + 1) * stride > 65_535:
                break
            parts.append(data)
            self._waiting.popleft()
        self._bytes -= sum(map(len, parts))
        control = [(SOL_UDP, UDP_GRO, struct.pack("=i", stride))] if len(parts) > 1 else []
        return b"".join(parts), control, 0, source

    def sendmsg(self, parts: Sequence[Any], control: Sequence[Any], flags: int, to: Address) -> None:
        data = b"".join(parts)
        stride = next((struct.unpack("=H", value)[0] for _, kind, value in control if kind == UDP_SEGMENT), len(data))
        self._socket.send_batch([data], stride, to)

    def sendto(self, data: Any, to: Address) -> None:
        self._socket.send(bytes(data), to)
