"""Datagrams that a connector does not pass on are counted, by protocol and why, and the count is a metric."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from types import SimpleNamespace
from typing import Any

from warren.connector.flows import Counts
from warren.connector.health import families
from warren.connector.icmp import EchoFlow
from warren.connector.udp import UdpFlow
from warren.fabric.daemon.metrics import text


class FullPeer:
    """The queue towards the agent has no room."""

    def __init__(self) -> None:
        self.refused = asyncio.Event()

    def send_datagram(self, flow: Any, payload: bytes) -> bool:
        self.refused.set()
        return False


def nothing(*_: Any) -> None:
    pass


def page(counts: Counts) -> str:
    connector: Any = type(
        "Connector", (), {"__len__": lambda self: 0, "counts": counts, "nodes": [], "draining": False}
    )()
    return text(families(connector))


def test_what_is_dropped_is_counted() -> None:
    async def scenario() -> str:
        counts, peer = Counts(), FullPeer()
        flow: Any = SimpleNamespace(reset=lambda: None, ended=None)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as origin:
            origin.bind(("127.0.0.1", 0))
            origin.settimeout(10)
            datagrams: Any = peer

            def shared(protocol: str) -> Any:
                return nothing, nothing, counts.dropped[protocol], asyncio.get_running_loop().time

            port = origin.getsockname()[1]
            udp = UdpFlow(datagrams, flow, "127.0.0.1", port, *shared("udp"))
            udp.send(b"question")
            answer_to = origin.recvfrom(100)[1]
            origin.sendto(b"answer", answer_to)
            async with asyncio.timeout(10):
                await peer.refused.wait()
            udp.close()
        echo = EchoFlow(datagrams, flow, "127.0.0.1", *shared("icmp"))
        echo.send(b"")
        echo.close()
        assert counts.dropped == {"udp": Counter(queue=1), "icmp": Counter(malformed=1)}
        return page(counts)

    said = asyncio.run(scenario())
    assert 'warren_connector_datagrams_dropped_total{protocol="udp",reason="queue"} 1' in said
    assert 'warren_connector_datagrams_dropped_total{protocol="icmp",reason="malformed"} 1' in said
