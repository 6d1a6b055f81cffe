"""Which circuit leads, and what a silence leads to, step by step; a fake of the connection, no clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core.engine import Batch, PathChange, Received, Statistics
from warren.fabric.core.paths import (
    CIRCUITS,
    COPIES,
    FAR,
    LONG,
    PATIENCE,
    PTO_MOST,
    TURN,
    TURN_SHARE,
    UNSAMPLED,
    Moved,
    Paths,
    State,
    Timer,
    believed_pto,
    copy_for,
)

A, B, C, D, E = (b"\x00circ-" + letter + b"0" for letter in (b"a", b"b", b"c", b"d", b"e"))
NEWEST, LATE, NOTHING = Received(True, True), Received(True, False), Received(False, False)
PTO = 0.05


class Engine:
    """What `Paths` asks and tells."""

    def __init__(self) -> None:
        self.flying, self.has_sample, self.probes, self.size = False, True, 0, 0
        self.changes: list[PathChange] = []
        self.waits, self.smallest = PTO, PTO / 2

    def statistics(self) -> Statistics:
        return Statistics(self.waits, self.smallest, 0, 0, 0.0, 0, 0, 0, 0, "")

    def in_flight(self) -> bool:
        return self.flying

    def sampled(self) -> bool:
        return self.has_sample

    def pto(self) -> float:
        return self.waits

    def probe(self, now: float) -> None:
        self.probes += 1

    def resize(self, size: int) -> None:
        self.size = size

    def path_changed(self, now: float, kind: PathChange) -> None:
        self.changes.append(kind)
        if kind is PathChange.MOVED:
            self.has_sample = False


def two(*, agent: bool = True) -> tuple[Paths, Any]:
    engine: Any = Engine()
    paths = Paths(engine, A, 1444, 0.0, agent=agent)
    assert paths.add(B, 1392, 0.0)
    return paths, engine


def silent(*, agent: bool = True) -> tuple[Paths, Any, float]:
    """Copies are being sent."""
    paths, engine = two(agent=agent)
    engine.flying = True
    paths.handle_flight(1.0)
    due = paths.poll_timeout()
    assert due == (1.0 + PATIENCE, Timer.SILENCE)
    paths.handle_timeout(due[0])
    return paths, engine, due[0]


def ring(paths: Paths, until: float) -> None:
    while (due := paths.poll_timeout()) is not None and due[0] <= until:
        paths.handle_timeout(due[0])


def alone() -> tuple[Paths, Any]:
    engine: Any = Engine()
    paths = Paths(engine, A, 1444, 0.0, agent=True)
    engine.flying = True
    paths.handle_flight(1.0)
    return paths, engine


def test_one_circuit_alone_is_probed_in_a_silence_and_sends_no_copies() -> None:
    paths, engine = alone()
    ring(paths, 12.0)
    assert paths.ways() == (A,) and engine.probes
    paths.handle_received(A, NEWEST, 12.0)
    assert paths.state is State.LEADING and engine.changes == [PathChange.RESUMED]
    assert not paths.remove(A, 12.0) and paths.circuits == (A,)


@pytest.mark.parametrize("circuits", [1, 2, 3])
def test_in_the_dark_each_circuit_is_probed_four_times_a_second_and_ever_more_rarely(circuits: int) -> None:
    """In the first minute a way that came back is found within half a second; a night of it costs next to nothing."""
    paths, engine = alone()
    for circuit in (B, C)[: circuits - 1]:
        paths.add(circuit, 1444, 1.0)
    probed, now = [], 1.0
    while now < 3600.0:
        before, now = engine.probes, (paths.poll_timeout() or (0.0,))[0]
        paths.handle_timeout(now)
        probed += [(now, way) for way in paths.ways()] * (engine.probes - before)

    def during(begin: float, end: float) -> int:
        return sum(begin <= at < end for at, _ in probed)

    assert during(0.0, 6.0) < 5 * 16 * circuits, "copies of a second, and three probes in the patience"
    assert during(10.0, 60.0) == pytest.approx(200 * circuits, rel=0.05)
    assert during(300.0, 360.0) < 50 * circuits
    assert during(3000.0, 3600.0) < 140
    for circuit in paths.circuits:
        mine = [at for at, way in probed if way == circuit and 3.0 < at < 60.0]
        assert all(b - a < 0.3 + (circuits - 1) * max(TURN, b / TURN_SHARE) for a, b in pairwise(mine))


def test_datagrams_fit_every_circuit() -> None:
    paths, engine = two()
    assert engine.size == 1392
    paths.resize(B, 1224, 0.5)
    assert engine.size == 1224
    paths.remove(B, 1.0)
    assert engine.size == 1444
    assert not engine.changes


def test_a_size_tells_that_the_new_circuits_other_end_is_bound() -> None:
    paths, engine = two()
    paths.remove(A, 1.0)
    assert engine.changes == [PathChange.MOVED]
    paths.resize(B, 1224, 1.1)
    assert engine.changes == [PathChange.MOVED, PathChange.RESUMED], "what was sent before may be lost"
    paths.handle_received(B, NEWEST, 1.2)
    paths.resize(B, 1444, 1.3)
    assert len(engine.changes) == 2


def test_there_are_not_more_than_the_bound() -> None:
    paths, _ = two()
    assert [paths.add(circuit, 1444, 0.0) for circuit in (B, C, D, E)] == [False, True, True, False]
    assert len(paths.circuits) == CIRCUITS


def test_a_silence_with_data_in_flight_probes_and_copies() -> None:
    paths, engine, _ = silent()
    assert paths.state is State.COPYING and paths.ways() == (A, B) and engine.probes == 1


def test_without_data_in_flight_there_is_no_silence() -> None:
    paths, _ = two()
    paths.handle_flight(5.0)
    assert paths.poll_timeout() is None


@pytest.mark.parametrize(
    ("pto", "smallest", "believed"),
    [(PTO, 0.001, PTO), (90.0, 0.04, LONG), (90.0, 0.4, FAR * 0.4), (1.5, 0.7, 1.5)],
)
def test_waits_are_not_made_from_a_standstill(pto: float, smallest: float, believed: float) -> None:
    engine: Any = Engine()
    engine.waits, engine.smallest = pto, smallest
    assert believed_pto(engine) == believed


def test_who_hears_and_says_nothing_with_data_in_flight_probes() -> None:
    """Its window is full, and even its acknowledgements wait for that."""
    paths, engine = two()
    engine.flying = True
    paths.handle_flight(1.0)
    for now in (1.0, 1.0 + PATIENCE):
        paths.handle_received(A, NEWEST, now)
    assert not engine.probes
    paths.handle_received(A, NEWEST, 1.01 + PATIENCE)
    assert engine.probes == 1 and paths.state is State.LEADING
    paths.handle_sent()
    paths.handle_received(A, NEWEST, 5.0)
    assert engine.probes == 1, "it has just said something"


def test_after_a_second_each_circuit_alone_in_turn_the_leading_one_last() -> None:
    """Each for so long that an end follows whose PTO is the longest that is believed."""
    paths, engine, began = silent()
    ring(paths, began + COPIES - 0.01)
    assert paths.state is State.COPYING
    while paths.state is State.COPYING:
        paths.handle_timeout((paths.poll_timeout() or (0.0,))[0])
    seen = [paths.ways()]
    since = paths.poll_timeout()
    while len(seen) < 28:
        due = paths.poll_timeout()
        assert due is not None and due[1] is Timer.PROBE
        before = engine.probes
        paths.handle_timeout(due[0])
        assert engine.probes == before + 1
        seen.append(paths.ways())
    assert paths.state is State.TURNS
    assert seen == [*7 * [(B,)], *7 * [(A,)], *7 * [(B,)], *7 * [(A,)]]
    assert since is not None and (due[0] - since[0]) / 27 * 7 > LONG


@pytest.mark.parametrize("agent", [True, False])
def test_what_is_newest_ends_the_copies_and_its_circuit_leads(agent: bool) -> None:
    paths, engine, now = silent(agent=agent)
    paths.handle_received(B, NEWEST, now + 0.1)
    assert paths.lead == B and paths.state is State.LEADING and engine.changes == [PathChange.MOVED]
    assert paths.poll_event() == Moved(B, A, pytest.approx(now + 0.1))
    assert paths.poll_event() is None


def test_an_answer_on_the_leading_circuit_resumes_it() -> None:
    paths, engine, now = silent()
    paths.handle_received(A, NEWEST, now + 0.1)
    assert paths.lead == A and engine.changes == [PathChange.RESUMED] and paths.moves == 0


def test_after_turns_the_engine_is_probed_for_a_second_whatever_it_waits_for() -> None:
    paths, engine, now = silent()
    ring(paths, now + 5.0)
    assert paths.state is State.TURNS
    paths.handle_received(A, NEWEST, now + 5.0)
    before = engine.probes
    for heard in range(20):
        ring(paths, now + 5.0 + heard / 10)
        paths.handle_received(A, NEWEST, now + 5.0 + heard / 10)
        paths.handle_sent()
    assert engine.probes - before in (9, 10)
    assert paths.state is State.LEADING


@pytest.mark.parametrize("received", [LATE, NOTHING])
def test_what_is_old_or_forged_moves_nothing(received: Received) -> None:
    paths, engine, now = silent()
    paths.handle_received(B, received, now + 0.1)
    assert paths.lead == A and paths.state is State.COPYING and not engine.changes
    paths.handle_received(E, NEWEST, now + 0.1)
    assert paths.lead == A


@pytest.mark.parametrize(("agent", "patience"), [(True, PATIENCE), (False, PTO)])
def test_a_circuit_is_followed_once_the_leading_one_brings_nothing(agent: bool, patience: float) -> None:
    paths, _ = two(agent=agent)
    paths.handle_received(A, NEWEST, 1.0)
    paths.handle_received(B, NEWEST, 1.01)
    assert paths.lead == A
    assert paths.poll_timeout() == (1.0 + patience, Timer.FOLLOW)
    paths.handle_timeout(1.0 + patience)
    assert paths.lead == B


def test_a_single_packet_ahead_on_the_other_circuit_is_not_followed() -> None:
    paths, engine = two(agent=False)
    paths.handle_received(A, NEWEST, 1.0)
    paths.handle_received(B, NEWEST, 1.01)
    paths.handle_received(A, NEWEST, 1.02)
    assert paths.poll_timeout() is None
    ring(paths, 10.0)
    assert paths.lead == A and not engine.changes


def test_until_a_new_path_has_a_sample_the_pto_before_counts_and_doubles() -> None:
    paths, _ = two(agent=False)
    waits = []
    for number in range(8):
        other = next(circuit for circuit in paths.circuits if circuit != paths.lead)
        paths.handle_received(other, NEWEST, 100.0 * (number + 1))
        waits.append(paths.pto())
    assert waits == [UNSAMPLED, 1.0, 2.0, 4.0, PTO_MOST, PTO_MOST, PTO_MOST, PTO_MOST]


def test_the_leading_circuit_ends_and_the_other_leads_at_once() -> None:
    paths, engine = two()
    assert paths.remove(A, 1.0)
    assert paths.circuits == (B,) and engine.changes == [PathChange.MOVED]


def test_a_circuit_that_takes_anothers_place_leads_in_its_stead() -> None:
    paths, _ = two()
    assert paths.add(C, 1444, 1.0) and paths.remove(A, 1.0, successor=C)
    assert paths.lead == C


def test_a_slot_that_is_bound_again_breaks_the_turns_off_once() -> None:
    paths, engine, now = silent()
    ring(paths, now + 5.0)
    assert paths.state is State.TURNS
    probes = engine.probes
    paths.handle_changed(B, PathChange.RESUMED, now + 5.0)
    assert paths.ways() == (A, B) and engine.probes == probes + 1 and not engine.changes
    ring(paths, now + 6.0)
    paths.handle_changed(B, PathChange.RESUMED, now + 6.0)
    assert paths.state is State.TURNS, "the way to the switch works, and the one behind it does not"
    paths.handle_changed(A, PathChange.REBOUND, now + 6.1)
    assert engine.changes == [PathChange.REBOUND]


def test_copies_go_on_for_their_second_whatever_is_bound() -> None:
    paths, engine, now = silent()
    for _ in range(9):
        now += 0.1
        paths.handle_changed(B, PathChange.RESUMED, now)
    assert paths.state is State.COPYING and engine.probes == 10
    ring(paths, now + 0.5)
    assert paths.state is State.TURNS


def test_nothing_in_flight_any_more_ends_the_copies() -> None:
    paths, engine, now = silent()
    engine.flying = False
    paths.handle_flight(now)
    ring(paths, now + 1.0)
    assert paths.state is State.LEADING


def test_a_copy_has_another_header_on_every_segment() -> None:
    batch = Batch((A + b"one", A + b"two", A + b"3"), 11, 3)
    copy = copy_for(batch, B)
    assert b"".join(copy.parts) == B + b"one" + B + b"two" + B + b"3" and copy.stride == 11 and copy.segments == 3


STEP = st.one_of(
    st.tuples(st.just("received"), st.sampled_from([A, B, C, D, E]), st.sampled_from([NEWEST, LATE, NOTHING])),
    st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from([A, B, C, D, E])),
    st.tuples(st.just("changed"), st.sampled_from([A, B, C]), st.sampled_from(PathChange)),
    st.tuples(st.just("flying"), st.booleans()),
    st.tuples(st.just("sampled"), st.booleans()),
    st.tuples(st.just("ring")),
)


@given(st.booleans(), st.lists(st.tuples(st.floats(0, 3), STEP), max_size=60))
def test_whatever_happens_one_circuit_leads_and_datagrams_go_somewhere(agent: bool, steps: list[Any]) -> None:
    paths, engine = two(agent=agent)
    now = 0.0
    for wait, step in steps:
        now += wait
        match step:
            case ("received", circuit, received):
                paths.handle_received(circuit, received, now)
            case ("add", circuit):
                paths.add(circuit, 1444, now)
            case ("remove", circuit):
                paths.remove(circuit, now)
            case ("changed", circuit, kind):
                paths.handle_changed(circuit, kind, now)
            case ("flying", flying):
                engine.flying = flying
            case ("sampled", sampled):
                engine.has_sample = sampled
            case ("ring",):
                paths.handle_timeout(now)
        paths.handle_flight(now)
        assert paths.lead in paths.circuits and 1 <= len(paths.circuits) <= CIRCUITS
        assert paths.ways() and set(paths.ways()) <= set(paths.circuits)
        assert UNSAMPLED <= paths._pto <= max(PTO_MOST, UNSAMPLED)
    while paths.poll_event() is not None:
        pass
