"""Walks over wire names by their shape: as label by label."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from warren.dnsfilter.core import walks
from warren.dnsfilter.core.parents import Parents
from warren.dnsfilter.core.walks import NO_NAME, Walk, Walks
from warren.fabric.core import dnswire as wire

SHORTEST, APART = 7, frozenset({b"\x01a\x03org\x00", b"\x02bb\x00"})
LABELS = st.lists(st.binary(min_size=1, max_size=63) | st.sampled_from([b"a", b"org", b"x" * 42]), max_size=6)
NAMES = LABELS.map(lambda labels: b"".join(bytes((len(label),)) + label.replace(b"\x00", b"-") for label in labels))


def label_by_label(name: bytes) -> Walk:
    at, starts = 0, []
    while at < len(name) and name[at]:
        if name[at] > wire.LABEL_MAX:
            return NO_NAME
        starts.append(at)
        at += 1 + name[at]
    if at != len(name) - 1 or len(name) > wire.NAME_MAX:
        return NO_NAME
    lengths = {len(one) for one in APART}
    looked_up = [start for start in reversed(starts) if len(name) - start >= SHORTEST]
    return tuple(looked_up), tuple(start for start in starts if len(name) - start in lengths)


@settings(max_examples=150, deadline=None)
@given(st.lists(NAMES | st.binary(max_size=300).map(lambda some: some.replace(b"\x00", b"0")), max_size=8))
@example([b"\x2a" + b"x" * 42, b"x" * 43, b"\x2b" + b"x" * 42])  # a long label, and what looks like one
def test_as_label_by_label(some: list[bytes]) -> None:
    names = [name + b"\x00" for name in some]
    made = Walks(SHORTEST, APART)
    for _ in range(2):  # what is remembered, too
        assert made.of(names) == [label_by_label(name) for name in names]


def test_what_is_no_name_is_none() -> None:
    assert Walks(SHORTEST, APART).of([b"", b"\x03ab\x00", b"\x40" + b"a" * 64 + b"\x00", b"\x00"]) == [
        *[NO_NAME] * 3,
        ((), ()),
    ]


def test_shapes_are_bounded() -> None:
    made = Walks(SHORTEST, APART)
    for number in range(walks.SHAPES_MAX + 10):
        made.of([bytes((1 + number % 40,)) + b"a" * (number // 40) + b"\x00"])
    assert len(made._by_shape) <= walks.SHAPES_MAX


@given(st.lists(NAMES.map(lambda name: name + b"\x00"), max_size=8))
def test_parents_are_never_denied(names: list[bytes]) -> None:
    made = Parents()
    for name in names:
        made.add_those_of(name)
    assert all(made.has(hash(suffix) or 1) for name in names for suffix in list(wire.suffixes(name))[1:])
