"""One UDP flow at the connector: a connected socket to the origin, datagrams both ways, an end when nothing passes."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.reasons import Reason

BURST = 32
"""Datagrams read in one wake-up."""
LONGEST = 65_535
IDLE = 180.0
"""Seconds without a datagram either way: longer than the agent waits, who ends flows as a rule."""

_REASONS = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.EHOSTUNREACH: Reason.HOST_UNREACHABLE,
    errno.EACCES: Reason.HOST_UNREACHABLE,
    errno.EPERM: Reason.HOST_UNREACHABLE,
    errno.ENETUNREACH: Reason.NET_UNREACHABLE,
}


class UdpFlow:
    """Owns the socket until the flow ends."""

    def __init__(
        self,
        peer: ConnectorPeer,
        flow: Flow,
        address: str,
        port: int,
        flush: Callable[[], None],
        done: Callable[[Flow], None],
    ) -> None:
        """Raises DeniedError if no socket can be had."""
        self._peer = peer
        self._flow = flow
        self._flush = flush
        self._done = done
        self._loop = asyncio.get_running_loop()
        self.dropped = 0
        """Datagrams that the kernel or the queue towards the agent had no room for."""
        self._socket = _connected(address, port)
        self._used = self._loop.time()
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._timer = self._loop.call_later(IDLE, self._look)

    def send(self, payload: bytes) -> None:
        """A datagram of the app's."""
        if self._socket.fileno() < 0:
            return
        self._used = self._loop.time()
        try:
            self._socket.send(payload)
        except (BlockingIOError, InterruptedError):
            self.dropped += 1
        except OSError as error:
            self._failed(error)

    def _readable(self) -> None:
        for _ in range(BURST):
            try:
                data = self._socket.recv(LONGEST)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._failed(error)
                break
            self._used = self._loop.time()
            self.dropped += not self._peer.send_datagram(self._flow, data)
        self._flush()

    def _failed(self, error: OSError) -> None:
        """What the origin's host or the network answered to an earlier datagram: the app is told, the flow goes on."""
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            self.dropped += 1
            return
        self._peer.unreachable(self._flow, reason)

    def handle_readable(self) -> None:
        """The agent has ended the flow, or the connection to it is gone."""
        if self._flow.ended is not None:
            self.close()

    def _look(self) -> None:
        left = self._used + IDLE - self._loop.time()
        if left <= 0:
            self.close()
            self._flush()
        else:
            self._timer = self._loop.call_later(left, self._look)

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._timer.cancel()
        self._socket.close()
        self._flow.reset()
        self._done(self._flow)


def _connected(address: str, port: int) -> socket.socket:
    sock = None
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect((address, port))
    except OSError as error:
        if sock is not None:
            sock.close()
        reason = _REASONS.get(error.errno or 0, Reason.LIMIT)
        raise DeniedError(reason, os.strerror(error.errno or 0)) from None
    return sock
