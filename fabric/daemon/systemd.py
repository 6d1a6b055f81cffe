"""What a daemon tells systemd."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """sd_notify(3): one datagram to NOTIFY_SOCKET, where there is one. `state`: READY=1, STOPPING=1, STATUS=…"""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.sendall(state.encode())
