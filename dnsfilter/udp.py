"""Queries over UDP.

1. `_readable`: up to BATCH datagrams are taken from the socket at once, and what is at hand for them goes out at once;
   all have come when the first is read, as far as limits and the log are concerned. Each step is one pass over the
   batch, which costs half of what a call for each query does where there are many (and 5 µs more where there is one).
2. Where the same bytes had a whole answer before it goes out again, and names that are blocked as others before have
   their answer from them; such answers are counted and logged together.
3. `_datagram`: else, and then, `Front.take` decides; what upstreams have to be asked goes on in a task of its own.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from warren.dnsfilter.core.alike import Alike
from warren.dnsfilter.core.packets import ANSWER_MAX, Again, Shelf
from warren.dnsfilter.core.verdict import Asked, Client, Resolved
from warren.dnsfilter.datagrams import Datagrams, Source
from warren.dnsfilter.front import Front
from warren.fabric.core import dnswire as wire

BATCH: Final = 64
PEERS_MAX: Final = 10_000
"""Addresses of which client and answers are at hand: 200 bytes each."""
_RECEIVE_BUFFER: Final = 4 << 20
_ROOM: Final = wire.QUERY_MAX + 1


class _Peer(msgspec.Struct, eq=False):
    """An address that asked before."""

    address: str
    shelf: Shelf


_Found = TypeVar("_Found", Again, Alike)


class UdpListener:
    """One socket."""

    def __init__(self, front: Front, host: str, port: int) -> None:
        """Binds it; OSError if that can't be done."""
        self._front = front
        self._peers: dict[bytes, _Peer] = {}
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
        self._batch = Datagrams(self._socket, BATCH, _ROOM, ANSWER_MAX)
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
        started, batch, front = time.monotonic(), self._batch, self._front
        got = batch.receive()
        hosts = batch.hosts(len(got))
        peers = list(map(self._peers.get, hosts))
        shelves = [None if peer is None else peer.shelf for peer in peers]
        again, alike = front.resolver.at_hand(shelves, [rest for _, rest in got], started)
        others: Iterable[int] = ()
        if len(again) + len(alike) < len(got):
            others = sorted(set(range(len(got))).difference([one[0] for one in again], [one[0] for one in alike]))
        again, alike = self._within_limit(again, peers, started), self._within_limit(alike, peers, started)
        if again:
            numbers, packets = zip(*again, strict=True)
            batch.answer(numbers, [got[number][0] + packet.given(started) for number, packet in again])
        if alike:
            numbers, _, names, forms = zip(*alike, strict=True)
            batch.answer(numbers, [got[number][0] + form.head + raw + form.rest for number, raw, _, form in alike])
        self.unsent += batch.send()
        if again:
            front.note_again(packets, time.monotonic() - started)
        if alike:
            front.note_alike(names, forms, time.monotonic() - started)
        for number in others:
            self._datagram(b"".join(got[number]), number, hosts[number], started)

    def _within_limit(self, found: list[_Found], peers: Sequence[_Peer | None], now: float) -> list[_Found]:
        """Who is over the limit gets nothing: there was no cookie in it."""
        if not found:
            return found
        limiter, peer = self._front.limiter, peers[0]
        if peer is not None and peers.count(peer) == len(peers):  # mostly so under load
            return found[: limiter.takes(peer.address, len(found), now)]
        return [one for one in found if (peer := peers[one[0]]) is None or limiter.allows(peer.address, now)]

    def _datagram(self, data: bytes, number: int, host: bytes, started: float) -> None:
        front, source = self._front, self._batch.source(number)
        decided = front.take(data, source[0], "udp", started)
        if decided is None:
            return
        client = front.clients.of(source[0])
        if isinstance(decided, Resolved):
            self._answer(source, decided, client, started)
            peer = self._peers.get(host)
            if peer is None or not peer.shelf:  # all that stood there may have gone, and the shelf with it
                self._remember(host, source[0], client)
        else:
            self._spawn(self._forward(source, decided, started))

    def _remember(self, host: bytes, address: str, client: Client) -> None:
        if len(self._peers) >= PEERS_MAX:
            self._peers.clear()
        self._peers[host] = _Peer(address, self._front.resolver.shelf(client, "udp"))

    async def _forward(self, source: Source, asked: Asked, started: float) -> None:
        resolved = await self._front.forward(asked)
        self._answer(source, resolved, asked.client, started)

    def _answer(self, source: Source, resolved: Resolved, client: Client, started: float) -> None:
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
