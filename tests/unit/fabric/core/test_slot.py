"""The node's half of a binding, call by call (with a switch: tests/sim/test_slots.py)."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from warren.fabric.core import frames
from warren.fabric.core.engine import PathChange
from warren.fabric.core.frames import SIZES, Answer, Bind, Bound, Cookie
from warren.fabric.core.slot import CHALLENGES, OUT_LIMIT, Cause, Slot, SlotBound, Timer, Verify

ID, KEY = b"slot-id", b"k" * 16


def binds(slot: Slot) -> list[Bind]:
    found = []
    while (packet := slot.poll_transmit()) is not None:
        message = frames.decode(packet)
        if isinstance(message, Bind):
            found.append(message)
    return found


def answer(slot: Slot, now: float, generation: int = 1, how: int = 0, size: int = 1452, counter: int = 0) -> None:
    told = Bound(ID, counter or slot.counter, generation, how, size)
    slot.handle_control(frames.bound(KEY, told), now)


def changes(slot: Slot) -> list[PathChange | None]:
    found = []
    while (event := slot.poll_event()) is not None:
        if isinstance(event, SlotBound):
            found.append(event.change)
    return found


def bound(now: float = 0.0) -> Slot:
    slot = Slot(0, ID, KEY, now)
    binds(slot)
    answer(slot, now)
    changes(slot)
    return slot


def fire(slot: Slot) -> float:
    due = slot.poll_timeout()
    assert due is not None
    slot.handle_timeout(due[0])
    return due[0]


def test_three_binds_share_a_counter() -> None:
    slot = Slot(0, ID, KEY, 0.0)
    assert binds(slot) == [Bind(ID, 1, False, size) for size in SIZES]


def test_retries_double_up_to_a_second_with_new_counters() -> None:
    slot = Slot(0, ID, KEY, 0.0)
    times = [fire(slot) for _ in range(6)]
    waits = [round(b - a, 3) for a, b in zip([0.0, *times], times, strict=False)]
    assert waits == [0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert slot.counter == 7


def test_after_three_binds_without_an_answer_somebody_has_to_look() -> None:
    slot = Slot(0, ID, KEY, 0.0)
    fire(slot)
    fire(slot)
    assert slot.poll_event() is None
    fire(slot)
    assert slot.poll_event() == Verify()


def test_without_an_attachment_a_switch_that_knows_nothing_is_news_and_nothing_is_bound() -> None:
    slot = bound()
    slot.attachment(False, 1.0)
    slot.handle_control(frames.hint(frames.REBIND, ID), 1.0)
    assert slot.poll_event() is None and not binds(slot)
    slot.handle_control(frames.hint(frames.UNKNOWN, ID), 1.1)
    slot.handle_control(frames.hint(frames.UNKNOWN, ID), 1.2)
    assert slot.poll_event() == Verify() and slot.poll_event() is None and not binds(slot)


def test_retries_in_a_silence_are_small_and_whole_every_fourth_time() -> None:
    slot = bound()
    slot.flight(0.1, 0.0)
    sizes = []
    for _ in range(9):
        now = fire(slot)
        sizes.append(len(binds(slot)))
        answer(slot, now, size=1232)
    assert sizes == [3, 1, 1, 1, 3, 1, 1, 1, 3]


def test_what_is_asked_in_a_silence_makes_no_circuit_smaller() -> None:
    """The largest first: a Bound of the smallest alone would make engines throw away what is larger."""
    slot = bound()
    slot.flight(0.1, 0.0)
    asked = []
    for _ in range(6):
        fire(slot)
        asked.append(tuple(message.size for message in binds(slot)))
    assert asked == [SIZES, (1452, 1232), (1452, 1232), (1452, 1232), SIZES, (1452, 1232)]


def test_a_hint_is_followed_while_an_older_bind_is_unanswered() -> None:
    """The way is back, through another port of the NAT, and the next try would be most of a second away."""
    slot = bound()
    slot.flight(0.1, 0.0)
    while fire(slot) < 5.0:
        pass
    tried = fire(slot)
    for after, follows in ((0.05, False), (0.3, True), (0.35, False)):
        before = slot.counter
        slot.handle_control(frames.hint(frames.REBIND, ID), tried + after)
        assert (slot.counter > before) is follows


def test_nothing_regrows_while_a_silence_lasts() -> None:
    slot = bound()
    slot.flight(0.1, 0.0)
    for _ in range(2):
        answer(slot, fire(slot), size=1232)
    due = slot.poll_timeout()
    assert due is not None
    assert due[1] is Timer.SILENCE
    slot.authenticated(due[0])
    slot.flight(0.1, None)
    due = slot.poll_timeout()
    assert due is not None
    assert due[1] is Timer.REGROW


def test_what_a_generation_means() -> None:
    cases: list[tuple[int, int, PathChange | None]] = [
        (1, 0, None),
        (2, 0, PathChange.REBOUND),
        (2, 1, PathChange.MOVED),
        (3, 0b00, PathChange.REBOUND),
        (3, 0b10, PathChange.MOVED),
        (2, 0b10, PathChange.REBOUND),
        (10, 0, PathChange.MOVED),
    ]
    for generation, how, expected in cases:
        slot = bound()
        slot.suspect(0.0)
        answer(slot, 0.1, generation, how)
        assert changes(slot) == [expected], (generation, how)


def test_a_late_bound_counts_but_does_not_satisfy_what_came_after() -> None:
    slot = bound()
    slot.suspect(0.0)
    slot.network_changed(0.1)
    answer(slot, 0.2, 2, 0, counter=slot.counter - 1)
    assert changes(slot) == [PathChange.MOVED]
    assert not slot.bound
    answer(slot, 0.3, 3, 0)
    assert changes(slot) == [PathChange.MOVED]
    assert slot.bound


def test_counters_older_than_four_do_not_count() -> None:
    slot = Slot(0, ID, KEY, 0.0)
    for _ in range(4):
        fire(slot)
    answer(slot, 9.0, counter=1)
    assert not slot.bound
    answer(slot, 9.0, counter=2)
    assert slot.bound


def test_bounds_below_the_last_do_not_count() -> None:
    slot = Slot(0, ID, KEY, 0.0)
    fire(slot)
    answer(slot, 1.0, 5, counter=2)
    answer(slot, 1.0, 9, counter=1)
    assert slot.generation == 5


def test_sixteen_challenges_for_each_counter() -> None:
    slot = Slot(0, ID, KEY, 0.0)
    binds(slot)
    packet = frames.challenge(ID, 1, Cookie(1, 1232, bytes(16)))
    for _ in range(100):
        slot.handle_control(packet, 0.0)
    answers = 0
    while (out := slot.poll_transmit()) is not None:
        assert isinstance(frames.decode(out), Answer)
        answers += 1
    assert answers == CHALLENGES


def test_suspicion_counts_once_a_second() -> None:
    slot = bound()
    for at in range(30):
        slot.suspect(at / 10)
        answer(slot, at / 10)
    assert slot.sent_for[Cause.SUSPECT] == 3


def test_without_circuits_nothing_is_in_flight() -> None:
    slot = bound()
    slot.circuits(1)
    slot.flight(0.1, 0.0)
    slot.circuits(0)
    assert slot.poll_timeout() is None


OPERATIONS = st.lists(
    st.tuples(st.integers(0, 11), st.floats(0.0, 3.0), st.binary(max_size=60)), min_size=1, max_size=60
)


@settings(max_examples=200)
@given(OPERATIONS, st.integers(0, 1000))
def test_whatever_happens_the_next_timer_is_ahead_and_nothing_grows(
    operations: list[tuple[int, float, bytes]], seed: int
) -> None:
    rnd, now = random.Random(seed), 10.0
    slot = Slot(0, ID, KEY, now)
    for kind, wait, data in operations:
        now += wait
        while (due := slot.poll_timeout()) is not None and due[0] <= now:
            slot.handle_timeout(due[0])
            again = slot.poll_timeout()
            assert again is None or again[0] > due[0]
        match kind:
            case 0:
                slot.authenticated(now, rnd.randint(1, 44))
            case 1:
                slot.sent(now)
            case 2:
                slot.flight(rnd.uniform(0.01, 3.0), now)
            case 3:
                slot.flight(0.2, None)
            case 4:
                slot.circuits(rnd.randint(0, 3))
            case 5:
                slot.network_changed(now)
            case 6:
                slot.suspect(now)
            case 7:
                slot.attachment(rnd.random() < 0.5, now)
            case 8:
                slot.handle_control(frames.hint(rnd.choice((frames.REBIND, frames.UNKNOWN)), ID), now)
            case 9:
                answer(slot, now, rnd.randint(1, 3), rnd.randint(0, 255), rnd.choice(SIZES))
            case 10:
                slot.handle_control(frames.challenge(ID, slot.counter, Cookie(1, 1400, bytes(16))), now)
            case 11:
                slot.handle_control(data, now)
                slot.handle_control(bytes((frames.CONTROL,)) + ID + data, now)
        assert len(slot._out) <= OUT_LIMIT
        assert len(slot._answers) <= 4


def test_a_forged_bound_is_nothing() -> None:
    slot = Slot(0, ID, KEY, 0.0)
    slot.handle_control(frames.bound(b"x" * 16, Bound(ID, 1, 1, 0, 1452)), 0.0)
    assert not slot.bound
    assert slot.poll_event() is None


def test_a_switch_that_never_answers_is_asked_ever_more_rarely() -> None:
    slot = Slot(0, ID, KEY, 0.0)
    times = [0.0]
    while times[-1] < 120.0:
        times.append(fire(slot))
        binds(slot)
    assert sum(time < 60.0 for time in times) <= 64
    assert sum(time > 61.0 for time in times) <= 13


def test_without_circuits_only_a_node_that_listens_keeps_its_mapping() -> None:
    asks, listens = bound(), Slot(0, ID, KEY, 0.0, listens=True)
    binds(listens)
    answer(listens, 0.0)
    for slot in (asks, listens):
        slot.circuits(0)
    assert asks.poll_timeout() is None
    assert listens.poll_timeout() == (20.0, Timer.IDLE)
    fire(listens)
    assert len(binds(listens)) >= 1
