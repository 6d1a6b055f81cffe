"""A flow that is over is gone at once, without the interpreter having to look for circles of garbage: it does so after
thousands of flows only. What status shows of it stays."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from warren.agent import status
from warren.agent.capture.headers import FlowKey
from warren.agent.opening import Opening, Wanted
from warren.agent.tcp import TcpFlow, TcpJourney
from warren.agent.udp import UdpJourney
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Ending
from warren.fabric.core.reasons import Reason

TCP, UDP = 6, 17
GRANTED = SimpleNamespace(grant=b"", tunnel_name="office", route="r")


class Nothing:
    """Whatever is asked of it is done, and comes to nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **more: None


class FakeFlow:
    """Takes everything, has nothing to say, and ends when it is told."""

    ended: Ending | None = None

    def write(self, data: Any) -> int:
        return len(data)

    def read(self, limit: int) -> bytes:
        return b""

    def end(self) -> None:
        self.ended = "end"

    reset = end


class Decisions(Nothing):
    def __init__(self, refused: Reason | None = None) -> None:
        self.refused = refused

    async def grant(self, *words: Any, **more: Any) -> Any:
        if self.refused is not None:
            raise DeniedError(self.refused)
        return GRANTED


class Peers(Nothing):
    def open(self, wanted: Wanted) -> Opening:
        connections: Any = self
        return Opening(connections, wanted)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def key(protocol: int) -> FlowKey:
    return FlowKey(protocol, b"\xc0\0\2\1", 4007, b"\x0a\0\0\1", 7)


def tcp(decisions: Any) -> TcpJourney:
    nothing: Any = Nothing()
    peers: Any = Peers()
    return TcpJourney(nothing, decisions, peers, nothing)


async def opened(journey: TcpJourney) -> tuple[TcpFlow, FakeFlow, socket.socket]:
    """A flow that carries bytes, the far side of it, and the app's socket."""
    journey.syn(key(TCP))
    flow, far = journey.flows[key(TCP)], FakeFlow()
    assert flow.task is not None
    await flow.task
    flow.opened(far, "10.0.0.1")  # type: ignore[arg-type]
    app, ours = socket.socketpair()
    ours.setblocking(False)
    journey.accepted(key(TCP), ours)
    return flow, far, app


async def until_over(flow: TcpFlow) -> None:
    async with asyncio.timeout(10):
        while not flow.over:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_a_tcp_flow_that_ended() -> None:
    async def work() -> None:
        journey = tcp(Decisions())
        flow, far, app = await opened(journey)
        with app:
            app.sendall(b"hello")
            app.shutdown(socket.SHUT_WR)
            while far.ended is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
            flow.readable(far)  # type: ignore[arg-type]
            await until_over(flow)
        shown = status._flow(flow)
        assert (shown["state"], shown["sent"], shown["tunnel"]) == ("ended", 5, "office")
        await forgotten(journey, flow)

    async def forgotten(journey: TcpJourney, flow: TcpFlow) -> None:
        assert list(journey.ended) == [flow]
        journey.ended.clear()

    assert_gone(work)


def test_a_tcp_flow_that_its_app_reset() -> None:
    async def work() -> None:
        journey = tcp(Decisions())
        _, _, app = await opened(journey)
        app.close()
        journey.cancelled(key(TCP))
        assert not journey.flows

    assert_gone(work)


def test_a_tcp_flow_that_was_given_up_or_refused() -> None:
    async def work() -> None:
        journey = tcp(Decisions())
        journey.syn(key(TCP))
        await asyncio.sleep(0.01)
        journey.cancelled(key(TCP))
        journey.syn(key(TCP))
        await asyncio.sleep(0.01)
        journey.flows[key(TCP)].refused(Reason.REFUSED, "")
        journey = tcp(Decisions(Reason.POLICY))
        journey.syn(key(TCP))
        await asyncio.sleep(0.01)
        assert not journey.flows and len(journey.refusals) == 1

    assert_gone(work)


def test_a_udp_flow() -> None:
    async def work() -> None:
        nothing: Any = Nothing()
        peers: Any = Peers()
        for decisions in (Decisions(), Decisions(Reason.POLICY)):
            granting: Any = decisions
            journey = UdpJourney(nothing, granting, peers, nothing)
            journey.datagram(key(UDP), b"x")
            await asyncio.sleep(0.01)
            for flow in list(journey.flows.values()):
                journey.end(flow)
            journey.close()

    assert_gone(work)


def assert_gone(work: Any) -> None:
    """No flow, opening or pump of that work is left, once the loop has done what it had to."""
    before = {id(one) for one in alive()}

    async def main() -> None:
        await work()
        await asyncio.sleep(0.01)
        assert [one for one in alive() if id(one) not in before] == []

    asyncio.run(main())


def alive() -> list[Any]:
    names = {"TcpFlow", "UdpFlow", "Opening", "Pump"}
    return [one for one in gc.get_objects() if type(one).__name__ in names]
