"""IPv4 fragments put together: exact, bounded, and total."""

from __future__ import annotations

import random
import struct

from hypothesis import assume, given
from hypothesis import strategies as st

from warren.agent.capture.fragments import BYTES, PACKETS, PATIENCE, PIECES, Fragments
from warren.agent.capture.headers import VNET_HEADER, Datagram, Unread, build_udp, read

WIRE = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + struct.pack("!HH", 1000, 2000)


def cut(packet: bytes, step: int, ident: int = 7) -> list[bytes]:
    """The packet's fragments, as a kernel would make them; `step`: a multiple of 8."""
    header, payload = packet[VNET_HEADER : VNET_HEADER + 20], packet[VNET_HEADER + 20 :]
    found = []
    for start in range(0, len(payload), step):
        piece = payload[start : start + step]
        more = 0x2000 if start + step < len(payload) else 0
        fields = struct.pack("!HHH", 20 + len(piece), ident, more | start // 8)
        found.append(bytes(VNET_HEADER) + header[:2] + fields + header[8:] + piece)
    return found


@given(st.binary(min_size=1, max_size=9000), st.integers(1, 200), st.randoms(use_true_random=False))
def test_fragments_in_any_order_are_the_datagram(payload: bytes, eighths: int, chance: random.Random) -> None:
    pieces = cut(build_udp(WIRE, payload), eighths * 8)
    chance.shuffle(pieces)
    fragments = Fragments()
    found = [whole for piece in pieces if (whole := fragments.take(memoryview(piece), 0.0)) is not None]
    assert len(found) == 1
    datagram = read(memoryview(found[0]), VNET_HEADER)
    assert isinstance(datagram, Datagram) and found[0][datagram.start : datagram.end] == payload
    assert not fragments._open and fragments._bytes == 0


def test_a_packet_in_crumbs_is_dropped() -> None:
    """Comparing each with all before it must not cost without end."""
    fragments = Fragments()
    crumbs = cut(build_udp(WIRE, bytes(8 * PIECES + 100)), 8)
    assert all(fragments.take(memoryview(crumb), 0.0) is None for crumb in crumbs)
    assert fragments.dropped >= 1


def test_an_overlap_drops_the_packet() -> None:
    first, second, *_ = cut(build_udp(WIRE, bytes(4000)), 1480)
    fragments = Fragments()
    assert fragments.take(memoryview(first), 0.0) is None
    assert fragments.take(memoryview(first), 0.0) is None and fragments.dropped == 1
    assert fragments.take(memoryview(second), 0.0) is None


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0x3FFF), st.binary(max_size=64)), max_size=300))
def test_any_fragments_are_taken_and_bounds_hold(pieces: list[tuple[int, int, bytes]]) -> None:
    fragments = Fragments()
    for number, (ident, place, payload) in enumerate(pieces):
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, place, 64, 17, 0) + WIRE[:8]
        fragments.take(memoryview(bytes(VNET_HEADER) + head + payload), number * 0.01)
    assert len(fragments._open) <= PACKETS and 0 <= fragments._bytes <= BYTES + 64


def test_what_never_becomes_whole_goes_after_a_while() -> None:
    fragments = Fragments()
    fragments.take(memoryview(cut(build_udp(WIRE, bytes(4000)), 1480, ident=1)[0]), 0.0)
    fragments.take(memoryview(cut(build_udp(WIRE, bytes(4000)), 1480, ident=2)[0]), PATIENCE + 1)
    assert len(fragments._open) == 1 and fragments.dropped == 1


WIRE6 = bytes(15) + b"\1" + bytes(15) + b"\2" + struct.pack("!HH", 1000, 2000)


def cut6(packet: bytes, step: int, ident: int = 7) -> list[bytes]:
    """The same over IPv6, with a fragment header each."""
    header, payload = packet[VNET_HEADER : VNET_HEADER + 40], packet[VNET_HEADER + 40 :]
    found = []
    for start in range(0, len(payload), step):
        piece = payload[start : start + step]
        place = start | (start + step < len(payload))
        head = header[:4] + struct.pack("!HB", len(piece) + 8, 44) + header[7:]
        found.append(bytes(VNET_HEADER) + head + struct.pack("!BBHI", 17, 0, place, ident) + piece)
    return found


@given(st.binary(min_size=1, max_size=9000), st.integers(1, 200), st.randoms(use_true_random=False))
def test_ipv6_fragments_in_any_order_are_the_datagram(payload: bytes, eighths: int, chance: random.Random) -> None:
    packet = build_udp(WIRE6, payload)
    pieces = cut6(packet, eighths * 8)
    assume(len(pieces) > 1)  # one alone is atomic, and no fragment
    chance.shuffle(pieces)
    fragments = Fragments()
    found = [whole for piece in pieces if (whole := fragments.take(memoryview(piece), 0.0)) is not None]
    assert found == [packet]
    assert not fragments._open and fragments._bytes == 0


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=100)), max_size=100))
def test_any_ipv6_fragments_are_taken(pieces: list[tuple[int, bytes]]) -> None:
    fragments = Fragments()
    for following, payload in pieces:
        head = struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + WIRE6[:32]
        packet = memoryview(bytes(VNET_HEADER) + head + payload)
        if read(packet, VNET_HEADER) is Unread.FRAGMENT:
            fragments.take(packet, 0.0)
    assert len(fragments._open) <= PACKETS
