"""Datagrams in DATAGRAM frames: fragments, reassembly, turns."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core.datagrams import (
    ASSEMBLIES,
    ASSEMBLY_BYTES,
    LONGEST,
    PATIENCE,
    QUEUE_FLOW,
    Assembly,
    Turns,
    split,
)


@given(st.binary(max_size=9000), st.integers(8, 1500), st.integers(0, 1 << 20), st.randoms(use_true_random=False))
def test_what_is_split_comes_together_in_any_order(
    payload: bytes, room: int, packet: int, chance: random.Random
) -> None:
    parts = split(7, payload, room, packet)
    if not parts:
        assert len(payload) > (room - 7) * 64 or room <= 7
        return
    assert all(len(part) <= room for part in parts)
    chance.shuffle(parts)
    assembly = Assembly()
    found = [whole for part in parts if (whole := assembly.take(part, 0.0)) is not None]
    assert found == [(7, payload)] and assembly.dropped == 0


def test_the_longest_datagram_fits_the_smallest_path() -> None:
    assert 0 < len(split(1, bytes(LONGEST), 1194, 0)) <= 64


@given(st.lists(st.binary(max_size=40), max_size=200))
def test_any_bytes_are_taken_and_bounds_hold(frames: list[bytes]) -> None:
    assembly = Assembly()
    for number, frame in enumerate(frames):
        assembly.take(frame, number * 0.1)
    assert len(assembly._open) <= ASSEMBLIES and assembly._bytes <= ASSEMBLY_BYTES + 40


def test_a_lost_fragment_costs_its_datagram_only() -> None:
    assembly = Assembly()
    first, second = split(1, bytes(3000), 1200, 1), split(1, b"x" * 3000, 1200, 2)
    for part in first[:-1] + second[:-1]:
        assert assembly.take(part, 0.0) is None
    assert assembly.take(second[-1], 0.0) == (1, b"x" * 3000)
    assembly.take(split(1, bytes(3000), 1200, 3)[0], PATIENCE + 1)
    assert assembly.dropped == 1


def test_one_flow_that_floods_does_not_starve_another() -> None:
    turns, taken = Turns(), []
    for _ in range(1000):
        turns.add(1, [b"F" * 1000])
    turns.add(2, [b"q" * 100])

    def offer(data: bytes) -> bool:
        taken.append(data[:1])
        return len(taken) < 1000

    turns.send(offer)
    assert taken.index(b"q") <= 3
    assert turns.dropped == 1000 - QUEUE_FLOW // 1000


def test_what_the_engine_does_not_take_stays_in_order() -> None:
    turns, taken = Turns(), list[bytes]()
    for number in range(6):
        turns.add(number % 2, [bytes([number])])
    room = 2

    def offer(data: bytes) -> bool:
        if len(taken) >= room:
            return False
        taken.append(data)
        return True

    while turns:
        turns.send(offer)
        room += 2
    for parity in (0, 1):
        mine = [data[0] for data in taken if data[0] % 2 == parity]
        assert mine == sorted(mine) and len(mine) == 3


def test_a_flow_that_is_over_leaves_nothing() -> None:
    turns = Turns()
    turns.add(1, [b"a"])
    turns.add(2, [b"b"])
    turns.forget(1)
    taken: list[bytes] = []
    turns.send(lambda data: taken.append(data) is None)
    assert taken == [b"b"] and not turns
