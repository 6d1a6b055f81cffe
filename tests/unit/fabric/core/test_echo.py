"""ICMP echo inside datagrams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core.echo import (
    EXCEEDED,
    REPLY,
    UNREACHABLE,
    Answer,
    Request,
    pack_answer,
    pack_request,
    read_answer,
    read_request,
)


@given(st.integers(1, 255), st.integers(0, 0xFFFF), st.binary(max_size=100))
def test_a_request_comes_back_as_it_was(hops: int, sequence: int, data: bytes) -> None:
    assert read_request(pack_request(Request(hops, sequence, data))) == Request(hops, sequence, data)


@given(
    st.sampled_from([REPLY, UNREACHABLE, EXCEEDED]),
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=100),
)
def test_an_answer_comes_back_as_it_was(kind: int, code: int, sequence: int, source: bytes, data: bytes) -> None:
    answer = Answer(kind, code, sequence, source, data)
    assert read_answer(pack_answer(answer)) == answer


@given(st.binary(max_size=12))
def test_any_bytes_are_read(data: bytes) -> None:
    read_request(data)
    read_answer(data)


def test_who_answered_by_ipv6() -> None:
    answer = Answer(EXCEEDED, 0, 7, bytes(range(16)), b"")
    assert read_answer(pack_answer(answer)) == answer
    assert read_answer(pack_answer(answer)[:19]) is None
