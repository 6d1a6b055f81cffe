from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.fabric.core.reasons import CLOSE_CODES, Reason


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_closes_a_connection_by_a_code_of_its_own(reason: Reason) -> None:
    assert Reason.of_close(reason.close_code) is reason
    assert reason.close_code >= CLOSE_CODES > 0x200


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0x0, Reason.PEER_GONE),
        (0x1, Reason.INTERNAL),
        (0x2, Reason.LIMIT),
        (0xA, Reason.PROTOCOL),
        (0x100 + 42, Reason.BAD_PROOF),
        (CLOSE_CODES + 9_999, Reason.UNKNOWN),
    ],
)
def test_quics_own_codes_are_no_reasons_of_ours(code: int, reason: Reason) -> None:
    assert Reason.of_close(code) is reason


@given(st.integers(0, (1 << 62) - 1))
def test_any_code_has_a_reason(code: int) -> None:
    assert Reason.of_close(code) in Reason
