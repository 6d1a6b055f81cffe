"""What UDP and ICMP flows share at the connector: a socket that is watched, an end when nothing passes for too long.

Time in which nothing is heard of the agent is not too long: it may be asleep, and finds its flows as it left them."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Literal

from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.flow import Flow

Drop = Literal["kernel", "queue", "malformed", "failed"]
"""Why: no room in the kernel towards the origin, or in the queue towards the agent; an echo request that can't be read;
an error of the socket that means nothing to the app."""
Drops = Counter[Drop]
"""How many, of all flows of one protocol."""
LOOKS = 1.0
"""Seconds between two looks, at least: a clock that stands still is looked at in vain."""


class DatagramFlow:
    """Owns the socket until the flow ends. `idle`: seconds without a datagram either way, by `clock`."""

    def __init__(
        self,
        peer: ConnectorPeer,
        flow: Flow,
        sock: socket.socket,
        idle: float,
        flush: Callable[[], None],
        done: Callable[[Flow], None],
        drops: Drops,
        clock: Callable[[], float],
    ) -> None:
        self._peer = peer
        self._flow = flow
        self._socket = sock
        self._idle = idle
        self._flush = flush
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._drops = drops
        self._clock = clock
        self._used = clock()
        self._loop.add_reader(sock.fileno(), self._readable)
        self._timer = self._loop.call_later(idle, self._look)

    def send(self, payload: bytes) -> None:
        """A datagram of the app's."""
        raise NotImplementedError

    def _pass_on(self, payload: bytes) -> None:
        """To the agent."""
        if not self._peer.send_datagram(self._flow, payload):
            self._drops["queue"] += 1

    def _readable(self) -> None:
        raise NotImplementedError

    def handle_readable(self) -> None:
        """The agent has ended the flow, or the connection to it is gone."""
        if self._flow.ended is not None:
            self.close()

    def _look(self) -> None:
        left = self._used + self._idle - self._clock()
        if left <= 0:
            self.close()
            self._flush()
        else:
            self._timer = self._loop.call_later(max(left, LOOKS), self._look)

    def hurry(self, idle: float) -> None:
        """From now on it ends after so many seconds without a datagram, if that is sooner."""
        self._idle = min(self._idle, idle)
        self._timer.cancel()
        self._look()

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._timer.cancel()
        self._socket.close()
        self._flow.reset()
        self._done(self._flow)
