"""A UDP flow that nothing passes for a while is over; the next datagram would begin another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from warren.agent.capture.headers import FlowKey
from warren.agent.udp import IDLE, IDLE_DNS, UdpFlow, UdpJourney

UDP = 17


class Nothing:
    """Whatever is asked of it is done."""

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **more: None


class Clock:
    def __init__(self, now: float) -> None:
        self._now = now

    def monotonic(self) -> float:
        return self._now


def flow_to(journey: UdpJourney, port: int) -> UdpFlow:
    flow = UdpFlow(journey, FlowKey(UDP, b"\xc0\0\2\1", 4000 + port, b"\x0a\0\0\1", port), "")
    journey.flows[flow.key] = flow
    return flow


def test_idle_flows_expire_and_those_of_names_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look() -> None:
        nothing: Any = Nothing()
        journey = UdpJourney(nothing, nothing, nothing, nothing)
        name, data = flow_to(journey, 53), flow_to(journey, 7)
        now = data.used
        for passed, left in (
            (IDLE_DNS - 1, {name, data}),
            (IDLE_DNS + 1, {data}),
            (IDLE - 1, {data}),
            (IDLE + 1, set()),
        ):
            monkeypatch.setattr("warren.agent.udp.time", Clock(now + passed))
            journey._look()
            assert set(journey.flows.values()) == left
        journey.close()

    asyncio.run(look())


def test_an_answer_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look() -> None:
        nothing: Any = Nothing()
        journey = UdpJourney(nothing, nothing, nothing, nothing)
        flow = flow_to(journey, 7)
        now = flow.used
        monkeypatch.setattr("warren.agent.udp.time", Clock(now + IDLE - 1))
        flow.datagram(b"from the origin, on its own")
        monkeypatch.setattr("warren.agent.udp.time", Clock(now + IDLE + 1))
        journey._look()
        assert journey.flows == {flow.key: flow}
        journey.close()

    asyncio.run(look())
