"""Cutting GRO buffers: every segment's header counts, nothing is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.engines.aioquic.segments import split


@given(st.binary(max_size=60), st.integers(-1, 70), st.sampled_from([b"", b"a", b"ab", b"\x00" * 4]))
def test_own_and_foreign_are_the_whole_buffer(data: bytes, stride: int, header: bytes) -> None:
    own, foreign = split(data, stride, header)
    spans = sum(end - start for start, end in foreign)
    assert sum(map(len, own)) + len(own) * len(header) + spans == len(data)
    for start, end in foreign:
        step = stride if 0 < stride < len(data) else max(1, len(data))
        assert start % step == 0
        heads = {data[at : min(at + len(header), at + step, end)] for at in range(start, end, step)}
        assert len(heads) <= 1 and header not in heads


@given(st.lists(st.sampled_from([b"AA", b"BB", b"CC"]), min_size=1, max_size=30))
def test_each_segment_goes_by_its_own_header(heads: list[bytes]) -> None:
    data = b"".join(head + bytes([number]) for number, head in enumerate(heads))
    own, foreign = split(data, 3, b"AA")
    assert own == [bytes([number]) for number, head in enumerate(heads) if head == b"AA"]
    others = [number for start, end in foreign for number in range(start // 3, end // 3)]
    assert others == [number for number, head in enumerate(heads) if head != b"AA"]
