"""A UDP flow that nothing passes for a while is over; the next datagram would begin another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from warren.agent.capture.headers import PROTOCOL_ICMP, PROTOCOL_UDP, FlowKey
from warren.agent.udp import IDLE, IDLE_DNS, IDLE_ECHO, UdpFlow, UdpJourney


class Nothing:
    """Whatever is asked of it is done."""

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **more: None


class Path:
    """Of a peer connection: what its clock says."""

    def __init__(self) -> None:
        self.now = 5000.0

    def awake(self) -> float:
        return self.now


class Hand:
    """A journey whose flows are all open on one peer connection."""

    def __init__(self) -> None:
        nothing: Any = Nothing()
        self.path = Path()
        self.journey = UdpJourney(nothing, nothing, nothing, nothing)

    def flow(self, port: int, protocol: int = PROTOCOL_UDP) -> UdpFlow:
        flow = UdpFlow(self.journey, FlowKey(protocol, b"\xc0\0\2\1", 4000 + port, b"\x0a\0\0\1", port), "")
        opening: Any = Nothing()
        opening.state, opening.flow = Nothing(), None
        opening.state.path = self.path
        flow.opening = opening
        nothing: Any = None
        flow.opened(nothing, "10.0.0.1")
        self.journey.flows[flow.key] = flow
        return flow

    def left(self, now: float) -> set[UdpFlow]:
        """Flows after a look at this time."""
        self.path.now = 5000.0 + now
        self.journey._look()
        return set(self.journey.flows.values())


@pytest.fixture
def run() -> Callable[[Callable[[Hand], None]], None]:
    def within(scenario: Callable[[Hand], None]) -> None:
        async def main() -> None:
            hand = Hand()
            scenario(hand)
            hand.journey.close()

        asyncio.run(main())

    return within


def test_idle_flows_expire_and_those_of_names_and_echoes_sooner(run: Callable[[Callable[[Hand], None]], None]) -> None:
    def scenario(hand: Hand) -> None:
        name, echo, data = hand.flow(53), hand.flow(0, PROTOCOL_ICMP), hand.flow(7)
        for passed, left in (
            (IDLE_DNS - 1, {name, echo, data}),
            (IDLE_DNS + 1, {echo, data}),
            (IDLE_ECHO - 1, {echo, data}),
            (IDLE_ECHO + 1, {data}),
            (IDLE - 1, {data}),
            (IDLE + 1, set()),
        ):
            assert hand.left(passed) == left

    run(scenario)


def test_an_answer_keeps_it(run: Callable[[Callable[[Hand], None]], None]) -> None:
    def scenario(hand: Hand) -> None:
        flow = hand.flow(7)
        hand.path.now += IDLE - 1
        flow.datagram(b"from the origin, on its own")
        assert hand.left(IDLE + 1) == {flow}

    run(scenario)


def test_it_ages_by_its_connections_clock_once_it_is_open(run: Callable[[Callable[[Hand], None]], None]) -> None:
    """However long that has stood still before: the loop's clock has gone on."""

    def scenario(hand: Hand) -> None:
        hand.path.now = -1e6
        flow = hand.flow(7)
        hand.journey._look()
        assert hand.journey.flows == {flow.key: flow}
        hand.path.now += IDLE + 1
        hand.journey._look()
        assert not hand.journey.flows and flow.path is None

    run(scenario)
