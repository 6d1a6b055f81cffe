"""Nothing that a peer sent makes a line of its own or moves a cursor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core.printable import printable


def test_what_prints_stays_as_it_is() -> None:
    assert printable("Ünïcode ok") == "Ünïcode ok"


def test_line_ends_and_escapes() -> None:
    assert printable("a\n\x1b[31mb") == "a\\n\\x1b[31mb"


@given(st.text())
def test_it_always_prints(text: str) -> None:
    assert printable(text).isprintable()
