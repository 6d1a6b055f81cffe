"""Circuit packets: every field comes back, every bit counts, any bytes are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core import frames
from warren.fabric.core.frames import SIZES, Answer, Bind, Bound, Challenge, Cookie, Rebind, Unknown

KEY = b"k" * 16
SLOT = b"slot-id"
ids = st.binary(min_size=7, max_size=7)
counters = st.integers(0, 2**64 - 1)
cookies = st.builds(Cookie, st.integers(0, 2**64 - 1), st.sampled_from(SIZES), st.binary(min_size=16, max_size=16))


@given(ids, counters, st.booleans(), st.sampled_from(SIZES))
def test_bind(slot: bytes, counter: int, moved: bool, size: int) -> None:
    packet = frames.bind(slot, KEY, counter, moved, size)
    assert len(packet) == size
    assert frames.decode(packet) == Bind(slot, counter, moved, size)
    assert frames.genuine(packet, KEY)
    assert not frames.genuine(packet, b"K" * 16)


@given(ids, counters, cookies)
def test_challenge_is_as_long_as_its_bind(slot: bytes, counter: int, cookie: Cookie) -> None:
    packet = frames.challenge(slot, counter, cookie)
    assert len(packet) == cookie.size
    assert frames.decode(packet) == Challenge(slot, counter, cookie)


@given(ids, counters, st.booleans(), cookies)
def test_answer(slot: bytes, counter: int, moved: bool, cookie: Cookie) -> None:
    packet = frames.answer(slot, KEY, counter, moved, cookie)
    assert frames.decode(packet) == Answer(slot, counter, moved, cookie)
    assert frames.genuine(packet, KEY)


@given(ids, counters, st.integers(0, 2**32 - 1), st.integers(0, 255), st.sampled_from(SIZES))
def test_bound(slot: bytes, counter: int, generation: int, how: int, size: int) -> None:
    told = Bound(slot, counter, generation, how, size)
    packet = frames.bound(KEY, told)
    assert frames.decode(packet) == told
    assert frames.genuine(packet, KEY)
    assert len(packet) < len(frames.answer(slot, KEY, counter, False, Cookie(0, size, bytes(16))))


def test_hints_are_shorter_than_any_bind() -> None:
    assert frames.decode(frames.hint(frames.REBIND, SLOT)) == Rebind(SLOT)
    assert frames.decode(frames.hint(frames.UNKNOWN, SLOT)) == Unknown(SLOT)
    assert len(frames.hint(frames.UNKNOWN, SLOT)) == 9


PACKETS = [
    frames.bind(SLOT, KEY, 7, True, 1232),
    frames.answer(SLOT, KEY, 7, False, Cookie(5, 1400, b"c" * 16)),
    frames.bound(KEY, Bound(SLOT, 7, 3, 1, 1452)),
]


@given(st.sampled_from(PACKETS), st.data())
def test_no_bit_can_be_changed(packet: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(packet) * 8 - 1))
    forged = bytearray(packet)
    forged[at // 8] ^= 1 << at % 8
    assert frames.decode(forged) is None or not frames.genuine(forged, KEY)


def test_a_mac_is_for_one_length() -> None:
    """Cutting a copied Bind does not yield a genuine shorter one."""
    cut = frames.bind(SLOT, KEY, 7, False, 1452)[:1232]
    assert isinstance(frames.decode(cut), Bind)
    assert not frames.genuine(cut, KEY)


@given(st.binary(max_size=1500))
def test_decoding_is_total(data: bytes) -> None:
    frames.decode(data)
    frames.is_circuit(data)
    frames.decode(memoryview(bytes((frames.CONTROL,)) + data))


@given(st.sampled_from(range(8)), st.binary(max_size=80), st.sampled_from((0, *SIZES)))
def test_decoding_near_misses_is_total(kind: int, data: bytes, pad: int) -> None:
    packet = (bytes((frames.CONTROL,)) + SLOT + bytes((kind,)) + data).ljust(pad, b"\0")
    message = frames.decode(packet)
    if isinstance(message, Bind | Answer | Bound):
        assert not frames.genuine(packet, KEY)


@pytest.mark.parametrize("first", range(256))
def test_only_two_first_bytes_are_ours(first: int) -> None:
    assert frames.is_circuit(bytes((first,))) == (first < 64)
    if first != frames.CONTROL:
        assert frames.decode(bytes((first,)) + SLOT + bytes((frames.REBIND,))) is None
