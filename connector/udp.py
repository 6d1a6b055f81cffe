"""One UDP flow at the connector: a connected socket to the origin, datagrams both ways, an end when nothing passes."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from warren.connector.datagrams import DatagramFlow, Drops
from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.reasons import Reason

BURST = 32
"""Datagrams read in one wake-up."""
LONGEST = 65_535
SO_RCVBUFFORCE = 33
KERNEL_BUFFER = 1 << 20
"""Bytes asked of the kernel for what the origin sends: a second of 1,000 datagrams while we are not scheduled."""
IDLE = 180.0
"""Seconds without a datagram either way: longer than the agent waits, who ends flows as a rule."""

_REASONS = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.EHOSTUNREACH: Reason.HOST_UNREACHABLE,
    errno.EACCES: Reason.PROHIBITED,
    errno.EPERM: Reason.HOST_UNREACHABLE,
    errno.ENETUNREACH: Reason.NET_UNREACHABLE,
}


class UdpFlow(DatagramFlow):
    """One flow of its kind."""

    def __init__(
        self,
        peer: ConnectorPeer,
        flow: Flow,
        address: str,
        port: int,
        flush: Callable[[], None],
        done: Callable[[Flow], None],
        drops: Drops,
        clock: Callable[[], float],
    ) -> None:
        """Raises DeniedError if no socket can be had."""
        super().__init__(peer, flow, _connected(address, port), IDLE, flush, done, drops, clock)

    def send(self, payload: bytes) -> None:
        """A datagram of the app's."""
        if self._socket.fileno() < 0:
            return
        self._used = self._clock()
        try:
            self._socket.send(payload)
        except (BlockingIOError, InterruptedError):
            self._drops["kernel"] += 1
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
            self._used = self._clock()
            self._pass_on(data)
        self._flush()

    def _failed(self, error: OSError) -> None:
        """What the origin's host or the network answered to an earlier datagram: the app is told, the flow goes on."""
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            self._drops["failed"] += 1
            return
        self._peer.unreachable(self._flow, reason)


def _connected(address: str, port: int) -> socket.socket:
    sock = None
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, KERNEL_BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        sock.connect((address, port))
    except OSError as error:
        if sock is not None:
            sock.close()
        reason = _REASONS.get(error.errno or 0, Reason.LIMIT)
        raise DeniedError(reason, os.strerror(error.errno or 0)) from None
    return sock
