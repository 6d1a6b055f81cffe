"""Which upstream is asked next, and what counts as an answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.dnsfilter.core import upstream as core
from warren.dnsfilter.core.config import Group, Upstream
from warren.fabric.core import dnswire as wire

ONE, TWO, THREE = (Upstream(f"192.0.2.{n}") for n in (1, 2, 3))


def test_in_the_order_of_the_configuration_until_one_fails() -> None:
    health, group = core.Health(), Group((ONE, TWO, THREE))
    assert health.order(group, 0.0) == [ONE, TWO, THREE]
    for _ in range(core.FAILURES_TO_REST):
        assert health.order(group, 0.0)[0] is ONE
        health.failed(ONE, 0.0)
    assert health.order(group, 0.1) == [TWO, THREE, ONE]
    assert health.order(group, core.REST_S + 0.1) == [ONE, TWO, THREE]
    health.failed(ONE, core.REST_S + 0.1)
    assert health.order(group, core.REST_S + 0.2)[-1] is ONE  # still failing: rests at once
    health.answered(ONE, 0.01)
    assert health.order(group, core.REST_S + 0.3)[0] is ONE


def test_all_resting_are_still_asked() -> None:
    health, group = core.Health(), Group((ONE, TWO))
    for upstream in (ONE, TWO):
        for _ in range(core.FAILURES_TO_REST):
            health.failed(upstream, 0.0)
    assert health.order(group, 0.1) == [ONE, TWO]


def test_racing_by_round_trip() -> None:
    health, group = core.Health(), Group((ONE, TWO, THREE), "racing")
    health.answered(ONE, 0.05)
    health.answered(TWO, 0.01)
    assert health.order(group, 0.0) == [THREE, TWO, ONE]  # one that was never tried is worth a try


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.integers(0, 2**255 - 1))
def test_mixing_the_case_changes_nothing_else(labels: list[bytes], bits: int) -> None:
    name = b"".join(bytes((len(label),)) + label for label in labels).lower() + b"\x00"
    mixed = core.mixed_case(name, bits)
    assert mixed.lower() == name and len(mixed) == len(name)


def test_each_letter_has_a_bit_of_its_own() -> None:
    name = wire.name_wire("abc.example")
    assert len({core.mixed_case(name, bits) for bits in range(1 << 10)}) == 1 << 10
