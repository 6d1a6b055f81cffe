"""What people write about a link, and the fate of its packets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.lab.emulator import REORDERED_BY, Fates
from warren.lab.impairment import Impairment, bits, seconds, share


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.5 %", 0.005), ("0.01", 0.01), ("100%", 1.0)])
def test_shares(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("25ms", 0.025), ("300us", 0.0003), ("1.5s", 1.5)])
def test_times(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("100mbit", 10**8), ("56KBit", 56_000), ("1.5gbit", 1_500_000_000)])
def test_rates(text: str, value: int) -> None:
    assert bits(text) == value


@given(st.text(max_size=12))
def test_what_cannot_be_read_is_refused(text: str) -> None:
    for reader in (share, seconds, bits):
        try:
            assert reader(text) >= 0
        except ValueError as error:
            assert "is not a" in str(error)


@pytest.mark.parametrize(
    "wrong",
    [{"loss": 1.1}, {"duplicate": -0.1}, {"rate": 5}, {"delay": 61.0}, {"jitter": 0.1}, {"queue": 0.0}],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Impairment(**wrong)  # type: ignore[arg-type]


def test_it_is_written_as_it_is_asked_for() -> None:
    assert str(Impairment(loss=0.01, rate=10**8, delay=0.025, seed=7)) == "loss 1%, rate 100mbit, delay 25ms, seed 7"
    assert str(Impairment()) == "none"
    assert not Impairment(loss=0.5, rate=10**6).emulated


@given(st.integers(), st.floats(0, 1), st.floats(0, 1))
def test_the_same_seed_gives_the_same_fates(seed: int, reorder: float, duplicate: float) -> None:
    one, other = (Fates(0.02, 0.01, reorder, duplicate, str(seed)) for _ in range(2))
    assert [one.next(at / 1000) for at in range(50)] == [other.next(at / 1000) for at in range(50)]


@given(st.integers())
def test_jitter_keeps_the_order(seed: int) -> None:
    fates = Fates(0.02, 0.01, 0.0, 0.0, str(seed))
    times = [fates.next(at / 1000)[0] for at in range(100)]
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert all(0.01 <= due - at / 1000 <= 0.03 + 1e-9 for at, due in enumerate(times))


def test_a_reordered_packet_is_overtaken() -> None:
    fates = Fates(0.0, 0.0, 0.1, 0.0, "1")
    fate = [fates.next(at / 1000)[0] for at in range(1000)]
    late = [at for at, due in enumerate(fate) if due > at / 1000]
    assert len(late) == fates.reordered == pytest.approx(100, abs=30)
    assert all(fate[at] == pytest.approx(at / 1000 + REORDERED_BY) for at in late)
