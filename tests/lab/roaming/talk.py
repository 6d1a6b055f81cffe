"""A flow that says something all the while, hears exactly that, and knows how long it stalled."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.lab import apps
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.services import ECHO_PORT

WITHIN = 60.0
MIB = 1 << 20
PIECE = 4000


class Talk(threading.Thread):
    """A flow that goes on: bytes of a pattern go to the origin, and what comes back is compared."""

    def __init__(self, deployment: Deployment, address: str = "", every: float = 0.02) -> None:
        """`address`: of the origin, or what stands for its name."""
        super().__init__(daemon=True)
        payroll = deployment.lab["payroll"].address
        self._client = apps.connected(deployment.laptop, address or payroll, ECHO_PORT)
        self._client.settimeout(apps.PATIENCE)
        self._every, self._data = every, apps.pattern(MIB)
        self.sent = self.echoed = 0
        self.error = self._unsent = ""
        self._over = threading.Event()
        self.stall = 0.0
        """The longest time without an echo, in seconds."""
        self._sender = threading.Thread(target=self._send, daemon=True)

    def run(self) -> None:
        self._sender.start()
        last = time.monotonic()
        try:
            while not self._over.is_set():
                got = self._client.recv(apps.CHUNK)
                now = time.monotonic()
                self.stall, last = max(self.stall, now - last), now
                if not got:
                    self._sender.join(WITHIN)  # of two threads the kernel tells only one that there was a reset
                    self.error = self._unsent or "the end"
                    return
                if got != self._piece(self.echoed, len(got)):
                    self.error = f"wrong bytes after {self.echoed}"
                    return
                self.echoed += len(got)
        except OSError as error:
            self.error = name(error)

    def _piece(self, at: int, size: int) -> bytes:
        at %= MIB
        return (self._data[at : at + size] + self._data[: max(0, at + size - MIB)])[:size]

    def _send(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._client.sendall(self._piece(self.sent, PIECE))
            except OSError as error:
                self._unsent = name(error)
                return
            self.sent += PIECE

    def goes_on(self) -> None:
        """Waits until an echo comes of what is sent from now on."""
        sent = self.sent
        wait_until(lambda: self.error or self.echoed > sent, "the flow to go on", WITHIN)
        assert not self.error, self.error

    def ends(self) -> str:
        """Waits until it does, and says how."""
        self.join(WITHIN)
        return self.error

    def close(self) -> None:
        self._over.set()
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        self.join(WITHIN)
        self._client.close()


def name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, repr(error))


@contextmanager
def talk(deployment: Deployment, address: str = "") -> Iterator[Talk]:
    """One that goes on when the block begins."""
    flow = Talk(deployment, address)
    flow.start()
    flow.goes_on()
    try:
        yield flow
    finally:
        flow.close()
