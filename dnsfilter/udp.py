"""Queries over UDP.

1. `_readable`: up to BATCH datagrams are taken from the socket before anything else has its turn; all have come when
   the first is read, as far as limits and the log are concerned.
2. Where the same bytes had a whole answer before it goes out again; such answers are counted and logged together.
3. `_datagram`: else `Front.take` decides; what upstreams have to be asked goes on in a task of its own.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from warren.dnsfilter.core.packets import Packet, Shelf
from warren.dnsfilter.core.verdict import Asked, Client, Resolved
from warren.dnsfilter.front import Front
from warren.fabric.core import dnswire as wire

BATCH: Final = 64
PEERS_MAX: Final = 10_000
"""Addresses of which client and answers are at hand: 200 bytes each."""
_RECEIVE_BUFFER: Final = 4 << 20
_ROOM: Final = wire.QUERY_MAX + 1


class _Peer(msgspec.Struct):
    """An address that asked before."""

    client: Client
    shelf: Shelf


class UdpListener:
    """One socket."""

    def __init__(self, front: Front, host: str, port: int) -> None:
        """Binds it; OSError if that can't be done."""
        self._front = front
        self._peers: dict[str, _Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.unsent = 0
        """Answers that a full socket did not take."""
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self._socket.setblocking(False)
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]

    def start(self) -> None:
        """Answer from now on."""
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    async def close(self) -> None:
        """Stop, and end what waits for upstreams."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _readable(self) -> None:
        receive, send, now = self._socket.recvfrom, self._socket.sendto, time.monotonic
        again, allows = self._front.resolver.again, self._front.limiter.allows
        answered: list[Packet] = []
        started = now()
        for _ in range(BATCH):
            try:
                data, source = receive(_ROOM)
            except BlockingIOError:
                break
            except OSError:  # an ICMP error about an earlier answer
                continue
            peer = self._peers.get(source[0])
            packet = None if peer is None else again(peer.shelf, data, peer.client, started)
            if packet is None or not packet.plain:
                self._datagram(data, source, started)
            elif allows(source[0], started):  # who is over the limit gets nothing: there was no cookie in it
                answered.append(packet)
                try:
                    send(packet.answer(data[:2], started), source)
                except OSError:
                    self.unsent += 1
        if answered:
            self._front.note_again(answered, now() - started)

    def _datagram(self, data: bytes, source: tuple[str, int], started: float) -> None:
        front, address = self._front, source[0]
        decided = front.take(data, address, "udp", started)
        if decided is None:
            return
        client = front.clients.of(address)
        if isinstance(decided, Resolved):
            self._answer(source, decided, client, started)
            peer = self._peers.get(address)
            if peer is None or not peer.shelf:  # all that stood there may have gone, and the shelf with it
                self._remember(address, client)
        else:
            self._spawn(self._forward(source, decided, started))

    def _remember(self, address: str, client: Client) -> None:
        if len(self._peers) >= PEERS_MAX:
            self._peers.clear()
        self._peers[address] = _Peer(client, self._front.resolver.shelf(client, "udp"))

    async def _forward(self, source: tuple[str, int], asked: Asked, started: float) -> None:
        resolved = await self._front.forward(asked)
        self._answer(source, resolved, asked.client, started)

    def _answer(self, source: tuple[str, int], resolved: Resolved, client: Client, started: float) -> None:
        message = self._front.finished(resolved, source[0], "udp")
        if message:
            try:
                self._socket.sendto(message, source)
            except OSError:
                self.unsent += 1
        self._front.note(resolved, client, time.monotonic() - started)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="dns query")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
