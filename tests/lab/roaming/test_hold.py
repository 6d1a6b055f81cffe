"""A laptop that is away for longer than the connector waits for it: its flows end with a reset, at both ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import apps
from tests.lab.roaming.place import Roaming, blackout, suspended
from tests.lab.roaming.talk import WITHIN
from warren.lab import wait_until

HOLD = 3.0
AWAY = 5.0
"""Seconds: an idle connection is asked for once more before it counts as silent."""


@pytest.fixture(scope="module", autouse=True)
def impatient(deployment: Roaming) -> Iterator[None]:
    """A connector that waits for a few seconds only."""
    deployment.restart_connector(hold=HOLD)
    yield
    deployment.restart_connector()


@pytest.mark.parametrize("gone", [suspended, blackout])
def test_past_the_hold_time_a_flow_ends_with_a_reset(deployment: Roaming, gone: Any) -> None:
    """And new ones open at once."""
    payroll, laptop = deployment.lab["payroll"], deployment.laptop
    ends: list[str] = []

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"there")
        ends.append(apps.read_until_error(sock)[1])

    with apps.origin(payroll, serve) as port, apps.connected(laptop, payroll.address, port) as client:
        assert client.recv(10) == b"there"
        gone(deployment, AWAY)
        client.settimeout(WITHIN)
        assert apps.read_until_error(client)[1] == "ECONNRESET"
        wait_until(lambda: ends, "the origin's reset", WITHIN)
        assert ends == ["ECONNRESET"]
        assert apps.connect(laptop, payroll.address, port).error == ""
