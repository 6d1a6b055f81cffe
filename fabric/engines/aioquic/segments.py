"""One GRO buffer, cut into the datagrams behind our header and the runs behind others."""

from __future__ import annotations

from collections.abc import Sequence


def split(data: bytes, stride: int, header: bytes) -> tuple[list[bytes], Sequence[tuple[int, int]]]:
    """The datagrams behind `header`, without it; and the spans of runs of segments with another one, one header each.

    `stride`: bytes of a segment, the last may be shorter; 0: one datagram. Each segment's header is looked at.
    """
    skip = len(header)
    if not 0 < stride < len(data):
        return ([data[skip:]], ()) if data.startswith(header) else ([], ((0, len(data)),))
    if not _mixed(data, stride, header):
        return [data[start + skip : start + stride] for start in range(0, len(data), stride)], ()
    own: list[bytes] = []
    foreign: list[tuple[int, int]] = []
    other: bytes | None = None
    for start in range(0, len(data), stride):
        end = min(start + stride, len(data))
        found = data[start : min(start + skip, end)]
        if found == header:
            other = None
            own.append(data[start + skip : end])
        elif found == other:
            foreign[-1] = (foreign[-1][0], end)
        else:
            other = found
            foreign.append((start, end))
    return own, foreign


def _mixed(data: bytes, stride: int, header: bytes) -> bool:
    """Whether not every segment begins with `header`: a few slices instead of one comparison per segment."""
    count = -(-len(data) // stride)
    return any(data[place::stride].count(byte) != count for place, byte in enumerate(header))
