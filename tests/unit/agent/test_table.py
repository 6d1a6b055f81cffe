"""The flow table, as a conversation between app, owner and clock."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from warren.agent.capture.headers import ACK, FIN, RST
from warren.agent.capture.table import (
    ENDED_LINGER_S,
    FORGOTTEN_LINGER_S,
    GIVE_UP_S,
    MAX_SYN_SIZE,
    FlowCancelled,
    FlowSyn,
    State,
    Table,
    Verdict,
)

KEY = b"flow of the test"
PACKET = b"the syn"


def events(table: Table) -> list[object]:
    found = []
    while (event := table.poll_event()) is not None:
        found.append(event)
    return found


def held(now: float = 0.0) -> Table:
    table = Table()
    assert table.handle_syn(KEY, 1, PACKET, now) is Verdict.KEEP
    assert events(table) == [FlowSyn(KEY)]
    return table


def opened() -> Table:
    table = held()
    assert table.release(KEY, 0.0) == PACKET
    assert table.accept(KEY)
    return table


def test_a_retransmit_asks_once_and_another_number_replaces() -> None:
    table = held()
    assert table.handle_syn(KEY, 1, PACKET, 1.0) is Verdict.KEEP
    assert events(table) == []
    assert table.handle_syn(KEY, 2, b"other", 2.0) is Verdict.KEEP
    assert events(table) == [FlowCancelled(KEY), FlowSyn(KEY)]
    assert table.release(KEY, 3.0) == b"other"


def test_release_happens_once_and_lets_packets_pass() -> None:
    table = held()
    assert KEY not in table.passing
    assert table.release(KEY, 1.0) == PACKET
    assert table.release(KEY, 1.0) is None
    assert table.remove(KEY) is None
    assert KEY in table.passing
    assert table.handle_syn(KEY, 1, PACKET, 2.0) is Verdict.FORWARD  # our kernel's SYN-ACK was lost
    assert table.accept(KEY)
    assert not table.accept(KEY)


def test_a_refused_flow_is_gone_and_may_be_asked_again() -> None:
    table = held()
    assert table.remove(KEY) == PACKET
    assert len(table) == 0
    assert table.handle_syn(KEY, 1, PACKET, 1.0) is Verdict.KEEP
    assert events(table) == [FlowSyn(KEY)]


def test_silence_lasts_as_long_as_the_app_tries() -> None:
    table = held()
    table.silence(KEY)
    assert table.handle_syn(KEY, 1, PACKET, 50.0) is Verdict.KEEP
    table.handle_timeout(GIVE_UP_S)
    assert table.state(KEY) is State.SILENT
    table.handle_timeout(50.0 + GIVE_UP_S)
    assert len(table) == 0
    assert events(table) == []  # nobody owns it


def test_a_held_flow_is_given_up_64_s_after_the_last_syn() -> None:
    table = held()
    table.handle_syn(KEY, 1, PACKET, 10.0)
    assert table.poll_timeout() == GIVE_UP_S
    table.handle_timeout(GIVE_UP_S)
    assert table.poll_timeout() == 10.0 + GIVE_UP_S
    table.handle_timeout(10.0 + GIVE_UP_S)
    assert events(table) == [FlowCancelled(KEY)]
    assert table.poll_timeout() is None
    assert table.release(KEY, 100.0) is None


def test_a_reset_after_release_cancels_and_goes_on() -> None:
    table = held()
    table.release(KEY, 0.0)
    assert table.handle_segment(KEY, RST, 1.0) is Verdict.FORWARD
    assert events(table) == [FlowCancelled(KEY)]
    assert len(table) == 0
    assert not table.accept(KEY)


def test_unknown_segments() -> None:
    table = Table()
    assert table.handle_segment(KEY, ACK, 0.0) is Verdict.RESET
    assert table.handle_segment(KEY, FIN | ACK, 0.0) is Verdict.RESET
    assert table.handle_segment(KEY, RST, 0.0) is Verdict.FORWARD
    table.handle_origin_segment(KEY, FIN, 0.0)
    assert len(table) == 0


def test_half_closed_for_ever_and_gone_after_both() -> None:
    table = opened()
    table.handle_segment(KEY, FIN | ACK, 1.0)
    table.handle_timeout(1e6)
    assert table.state(KEY) is State.OPEN
    assert KEY in table.passing
    table.handle_origin_segment(KEY, FIN | ACK, 2e6)
    assert table.state(KEY) is State.ENDING
    assert KEY not in table.passing
    assert table.handle_segment(KEY, ACK, 2e6 + 3) is Verdict.FORWARD  # and it lingers on
    table.handle_timeout(2e6 + ENDED_LINGER_S)
    assert len(table) == 1
    table.handle_timeout(2e6 + 3 + ENDED_LINGER_S)
    assert len(table) == 0
    assert events(table) == []


def test_a_reset_of_either_side_ends() -> None:
    for from_app in (True, False):
        table = opened()
        if from_app:
            assert table.handle_segment(KEY, RST, 1.0) is Verdict.FORWARD
        else:
            table.handle_origin_segment(KEY, RST, 1.0)
        table.handle_timeout(1.0 + ENDED_LINGER_S)
        assert len(table) == 0
        assert events(table) == []  # the owner's socket tells it


def test_forgotten_while_the_app_still_reads() -> None:
    table = opened()
    table.forget(KEY, 0.0)
    assert table.handle_segment(KEY, ACK, 200.0) is Verdict.FORWARD
    table.handle_timeout(FORGOTTEN_LINGER_S)
    assert len(table) == 1
    table.handle_timeout(200.0 + FORGOTTEN_LINGER_S)
    assert len(table) == 0


def test_forgetting_a_held_flow_does_nothing() -> None:
    table = held()
    table.forget(KEY, 0.0)
    assert table.release(KEY, 0.0) == PACKET
    table.forget(KEY, 0.0)
    assert not table.accept(KEY)  # let go between release and accept: the shell resets it


def test_a_new_syn_on_an_old_flow() -> None:
    table = opened()
    assert table.handle_syn(KEY, 2, PACKET, 5.0) is Verdict.KEEP
    assert events(table) == [FlowCancelled(KEY), FlowSyn(KEY)]
    assert KEY not in table.passing
    assert table.handle_segment(KEY, ACK, 5.0) is Verdict.KEEP  # of the old connection


def test_bounds() -> None:
    table = Table(max_flows=3, max_held=2)
    assert table.handle_syn(b"long", 1, bytes(MAX_SYN_SIZE + 1), 0.0) is Verdict.FULL
    verdicts = [table.handle_syn(bytes([number]), 1, PACKET, 0.0) for number in range(3)]
    assert verdicts == [Verdict.KEEP, Verdict.KEEP, Verdict.FULL]
    table.release(b"\0", 0.0)
    table.release(b"\1", 0.0)
    assert table.handle_syn(b"\2", 1, PACKET, 0.0) is Verdict.KEEP
    assert table.handle_syn(b"\3", 1, PACKET, 0.0) is Verdict.FULL


def test_timers_do_not_pile_up() -> None:
    table = Table()
    for number in range(20_000):
        key = number.to_bytes(4, "big")
        table.handle_syn(key, 1, PACKET, float(number) / 1000)
        table.remove(key)
    assert len(table._timers) <= 1_025


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order: no error, bounds kept, each owner told exactly once, everything ends."""

    keys = st.integers(0, 3).map(lambda number: bytes([number]))

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(max_flows=3, max_held=2)
        self.now = 0.0
        self.owned: set[bytes] = set()

    def settle(self) -> None:
        for event in events(self.table):
            if isinstance(event, FlowSyn):
                assert event.key not in self.owned
                self.owned.add(event.key)
            elif isinstance(event, FlowCancelled):
                self.owned.remove(event.key)

    @rule(key=keys, sequence=st.integers(0, 2))
    def syn(self, key: bytes, sequence: int) -> None:
        # an owner whose flow ended by packets, and who has not forgotten yet, lets go first
        if self.table.state(key) in (State.ENDING, State.GONE):
            self.owned.discard(key)
        self.table.handle_syn(key, sequence, PACKET, self.now)
        self.settle()

    @rule(key=keys, flags=st.sampled_from([ACK, FIN | ACK, RST]), from_app=st.booleans())
    def segment(self, key: bytes, flags: int, from_app: bool) -> None:
        if from_app:
            self.table.handle_segment(key, flags, self.now)
        else:
            self.table.handle_origin_segment(key, flags, self.now)
        self.settle()

    @rule(key=keys, what=st.sampled_from(["release", "remove", "silence", "accept", "forget"]))
    def decide(self, key: bytes, what: str) -> None:
        if what in ("release", "forget"):
            getattr(self.table, what)(key, self.now)
        else:
            getattr(self.table, what)(key)
        if self.table.state(key) not in (State.HELD, State.RELEASED, State.OPEN):
            self.owned.discard(key)
        self.settle()

    @rule(seconds=st.sampled_from([0.5, 5.0, 64.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.table.handle_timeout(self.now)
        self.settle()

    @invariant()
    def consistent(self) -> None:
        table = self.table
        assert len(table) <= 3
        held_now = [key for key in table._flows if table.state(key) is State.HELD]
        assert table._held == len(held_now) <= 2
        passing = {key for key in table._flows if table.state(key) in (State.RELEASED, State.OPEN)}
        assert table.passing == passing
        timed = [key for key in table._flows if table.state(key) is not State.OPEN]
        assert not timed or ((at := table.poll_timeout()) is not None and at <= self.now + FORGOTTEN_LINGER_S)


TestAnyOrder = AnyOrder.TestCase
