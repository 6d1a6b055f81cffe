"""Short flows, one after another, beside the long ones of tests/chaos."""

from __future__ import annotations

import random
import socket
import threading

from tests.chaos.apps import PATIENCE, Stream, push
from warren.lab.host import Host

LARGEST = 200_000
"""Bytes of a flow, each way; the least is none."""
PAUSE = 0.8
"""Seconds between two flows."""


class Visits(Stream):
    """Each goes up, ends that direction, comes down, and ends: what arrived is compared, and where it ended."""

    def __init__(self, laptop: Host, origin: Host, seed: int) -> None:
        super().__init__(laptop, origin, down=False)
        self.track.name = "short flows"
        self._draw = random.Random(seed)

    def session(self) -> None:
        near, far = self._both_ends()
        with near, far:
            self.track.opened()
            for source, sink in ((near, far), (far, near)):
                self._carry(source, sink, self._draw.randrange(LARGEST))
        self.over.wait(PAUSE)

    def _carry(self, source: socket.socket, sink: socket.socket, size: int) -> None:
        over = threading.Event()

        def send() -> None:
            try:
                push(source, 0, size, over)
                source.shutdown(socket.SHUT_WR)
            except OSError:  # the receiver says so
                return

        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        try:
            self._receive(sink, size)
        finally:
            over.set()
            sending.join(PATIENCE)
