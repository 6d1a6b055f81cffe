"""A call that nobody answers is made again and again: whoever comes up is found soon."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.unit.fabric.identity.world import World
from warren.fabric.aio import call as module
from warren.fabric.aio.call import ALPN, LIMITS, Call
from warren.fabric.core.engine import ClientConfig
from warren.fabric.core.reasons import Reason
from warren.fabric.engines import engine
from warren.fabric.identity import certificates

pytestmark = pytest.mark.anyio


async def test_first_packets_are_sent_again_long_before_the_engine_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUDGE_EVERY", 0.01)
    loop, world = asyncio.get_running_loop(), World()
    config = ClientConfig(ALPN, "x.edge.warren.internal", certificates.pem(world.network), LIMITS["agent"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        call = Call(engine(), config, silent.getsockname(), lambda event: None, lambda: False)
        call.start()
        async with asyncio.timeout(10):
            for _ in range(20):  # of the engine's own, which double from 0.2 or 1 s, six would come
                assert len(await loop.sock_recv(silent, 2048)) >= 1200
        call.close(Reason.CANCELLED)
