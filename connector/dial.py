"""Opens TCP connections to origins: happy eyeballs over the addresses of a name, and the errno as a reason."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket

from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

STAGGER = 0.25
"""Seconds until the next address is tried beside the one before (RFC 8305, section 5)."""
LONGEST = 150.0
"""Seconds: longer than any kernel goes on with its SYNs; the agent gives up long before."""
KEEPALIVE = (60, 15, 4)
"""TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT: a dead origin becomes a reset after two minutes."""
USER_TIMEOUT = 120_000
"""Milliseconds that unacknowledged bytes may wait for an origin."""

_REASONS = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ECONNRESET: Reason.REFUSED,
    errno.EHOSTUNREACH: Reason.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Reason.HOST_UNREACHABLE,
    errno.EACCES: Reason.PROHIBITED,
    errno.EPERM: Reason.HOST_UNREACHABLE,
    errno.ENETUNREACH: Reason.NET_UNREACHABLE,
    errno.ENETDOWN: Reason.NET_UNREACHABLE,
    errno.EADDRNOTAVAIL: Reason.NET_UNREACHABLE,
    errno.ETIMEDOUT: Reason.TIMED_OUT,
    errno.EMFILE: Reason.LIMIT,
    errno.ENFILE: Reason.LIMIT,
}


async def dial(addresses: list[str], port: int) -> socket.socket:
    """A connected, non-blocking socket to the first of `addresses` that accepts.

    Raises DeniedError with what the first address answered, where none accepts.
    """
    pending: set[asyncio.Task[socket.socket]] = set()
    waiting, failures = list(addresses), list[DeniedError]()
    try:
        async with asyncio.timeout(LONGEST):
            while waiting or pending:
                if waiting:
                    pending.add(asyncio.create_task(_connect(waiting.pop(0), port)))
                done, pending = await asyncio.wait(
                    pending, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                connected = [task.result() for task in done if _succeeded(task, failures)]
                for spare in connected[1:]:
                    spare.close()
                if connected:
                    return connected[0]
    except TimeoutError:
        raise DeniedError(Reason.TIMED_OUT) from None
    finally:
        for task in pending:
            task.add_done_callback(_close_late)
            task.cancel()
    raise failures[0] if failures else DeniedError(Reason.NO_SUCH_NAME)


def _succeeded(task: asyncio.Task[socket.socket], failures: list[DeniedError]) -> bool:
    error = task.exception()
    if error is None:
        return True
    if not isinstance(error, DeniedError):
        raise error
    failures.append(error)
    return False


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _denied(error) from None
    try:
        sock.setblocking(False)
        _prepare(sock)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except OSError as error:
        sock.close()
        raise _denied(error) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    for name, value in zip(names, KEEPALIVE, strict=True):
        sock.setsockopt(socket.IPPROTO_TCP, name, value)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)


def _denied(error: OSError) -> DeniedError:
    reason = _REASONS.get(error.errno or 0, Reason.HOST_UNREACHABLE)
    return DeniedError(reason, os.strerror(error.errno) if error.errno else "")
