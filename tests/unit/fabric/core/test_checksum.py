"""The Internet checksum."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core.checksum import checksum


def test_the_example_of_the_rfc() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2  # RFC 1071, section 3


@given(st.binary(min_size=1, max_size=300).filter(any))
def test_what_carries_its_checksum_sums_up_to_nothing(data: bytes) -> None:
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)) + checksum(data)
    assert total % 0xFFFF == 0 and checksum(data) != 0
