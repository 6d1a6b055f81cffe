"""Peer connections end to end: proof, opening, bytes, ends as positions, credit."""

from __future__ import annotations

import pytest

from tests.sim.peer_pair import Pair
from warren.fabric.core.credit import INITIAL_WINDOW
from warren.fabric.core.flow import Flow
from warren.fabric.core.peer import (
    FlowAsked,
    FlowCancelled,
    FlowOpened,
    FlowReadable,
    FlowRefused,
    FlowWritable,
    PeerClosed,
    PeerReady,
)
from warren.fabric.core.reasons import Reason


def ready(**settings: object) -> Pair:
    pair = Pair(**settings)  # type: ignore[arg-type]
    pair.run()
    assert any(isinstance(event, PeerReady) for event in pair.agent_events)
    return pair


def opened(pair: Pair) -> tuple[Flow, Flow]:
    """One open flow: the agent's and the connector's end."""
    flow_id = pair.open()
    pair.run()
    asked = next(e for e in reversed(pair.connector_events) if isinstance(e, FlowAsked))
    pair.other.opened(asked.flow, "10.0.0.1")
    pair.run()
    assert any(isinstance(e, FlowOpened) and e.flow.id == flow_id for e in pair.agent_events)
    return pair.agent.flows[flow_id], pair.other.flows[flow_id]


def drain(flow: Flow, pair: Pair) -> bytes:
    """Reads everything that is there, and returns its credit."""
    taken = bytearray()
    while chunk := flow.read(65536):
        taken += chunk
        flow.took(len(chunk), pair.now)
    return bytes(taken)


def test_both_ends_prove_themselves() -> None:
    pair = ready()
    assert pair.other.ready and pair.other.key


def test_a_device_that_signs_with_another_key_is_refused() -> None:
    pair = Pair(device_lies=True)
    pair.run()
    closed = next(e for e in pair.agent_events if isinstance(e, PeerClosed))
    assert closed.reason is Reason.BAD_PROOF and not closed.ours
    assert not any(isinstance(e, PeerReady) for e in pair.connector_events)


def test_a_refused_flow_says_why() -> None:
    pair = ready()
    pair.open()
    pair.run()
    asked = next(e for e in pair.connector_events if isinstance(e, FlowAsked))
    assert asked.message.port == 80
    pair.other.refuse(asked.flow, Reason.REFUSED, "port 80")
    pair.run()
    refused = next(e for e in pair.agent_events if isinstance(e, FlowRefused))
    assert refused.reason is Reason.REFUSED and refused.detail == "port 80"
    assert not pair.agent.flows and not pair.other.flows


def test_cancelled_while_the_connector_dials() -> None:
    pair = ready()
    flow_id = pair.open()
    pair.run()
    pair.agent.cancel(pair.agent.flows[flow_id])
    pair.run()
    assert any(isinstance(e, FlowCancelled) for e in pair.connector_events)
    assert not pair.other.flows


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_bytes_are_exact_both_ways_with_half_close(loss: float) -> None:
    pair = ready(loss=loss, seed=3)
    here, there = opened(pair)
    sent = {here: pair.random.randbytes(900_000), there: pair.random.randbytes(700_000)}
    at, got = {here: 0, there: 0}, {here: bytearray(), there: bytearray()}
    for _ in range(5000):
        for flow in (here, there):
            if at[flow] < len(sent[flow]):
                at[flow] += flow.write(memoryview(sent[flow])[at[flow] : at[flow] + 65536])
                if at[flow] == len(sent[flow]):
                    flow.end()
        pair.run()
        for flow in (here, there):
            got[flow] += drain(flow, pair)
        if here.ended and there.ended:
            break
    assert bytes(got[there]) == sent[here] and bytes(got[here]) == sent[there]
    assert here.ended == there.ended == "end"
    for flow, peer in ((here, pair.agent), (there, pair.other)):
        peer.settled(flow)
    pair.run()
    assert not pair.agent.flows and not pair.other.flows


def test_a_reset_overtakes_no_data() -> None:
    pair = ready()
    here, there = opened(pair)
    assert there.write(b"x" * 100_000) == 100_000
    there.reset()
    pair.run()
    assert here.ended is None, "a reset before the data was read"
    assert drain(here, pair) == b"x" * 100_000
    assert here.ended == "reset"


def test_a_reader_that_never_reads_costs_one_window_and_nobody_else_anything() -> None:
    pair = ready()
    here, there = opened(pair)
    other_here, other_there = opened(pair)
    taken = 0
    for _ in range(50):
        taken += there.write(b"y" * 65536)
        pair.run()
    assert taken == INITIAL_WINDOW == here.buffered
    assert other_there.write(b"z" * 100_000) == 100_000
    pair.run()
    assert drain(other_here, pair) == b"z" * 100_000
    pair.connector_events.clear()
    drain(here, pair)
    pair.run()
    assert any(isinstance(e, FlowWritable) and e.flow is there for e in pair.connector_events)
    assert there.write(b"y" * 65536) == 65536


def test_writing_past_the_credit_ends_the_connection() -> None:
    pair = ready()
    _, there = opened(pair)
    there.allowance.limit = 1 << 40
    for _ in range(20):
        there.write(b"y" * 65536)
        pair.run()
    closed = next(e for e in pair.agent_events if isinstance(e, PeerClosed))
    assert closed.ours and closed.reason is Reason.PROTOCOL


def test_a_lost_connection_delivers_what_came_then_resets() -> None:
    pair = ready()
    here, there = opened(pair)
    there.write(b"last words")
    pair.run()
    pair.other.close(Reason.DRAINING, pair.now)
    pair.run()
    assert isinstance(pair.agent_events[-1], PeerClosed)
    assert any(isinstance(e, FlowReadable) and e.flow is here for e in pair.agent_events)
    assert bytes(here.read(100)) == b"last words" and here.ended == "reset"
