from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.sealed import MAGIC, PASSPHRASE_LEAST, seal, unseal

PASSPHRASE = "correct horse battery"


def test_the_content_comes_back_and_is_not_readable_before() -> None:
    content = b"a key, a key, a key"
    first, second = seal(content, PASSPHRASE), seal(content, PASSPHRASE)
    assert unseal(first, PASSPHRASE) == unseal(second, PASSPHRASE) == content
    assert content not in first and first != second


def test_a_short_passphrase_seals_nothing() -> None:
    with pytest.raises(ConfigError, match=f"at least {PASSPHRASE_LEAST} characters"):
        seal(b"", "x" * (PASSPHRASE_LEAST - 1))


def test_another_passphrase_opens_nothing() -> None:
    with pytest.raises(ConfigError, match="another one"):
        unseal(seal(b"content", PASSPHRASE), PASSPHRASE + " ")


@pytest.mark.parametrize("at", [len(MAGIC), len(MAGIC) + 20, len(MAGIC) + 30, -1])
def test_a_changed_byte_is_seen(at: int) -> None:
    sealed = bytearray(seal(b"content", PASSPHRASE))
    sealed[at] ^= 1
    with pytest.raises(ConfigError, match="damaged"):
        unseal(bytes(sealed), PASSPHRASE)


@given(st.binary(max_size=200).filter(lambda data: not data.startswith(MAGIC)))
@settings(max_examples=50)
def test_anything_else_is_refused_before_a_key_is_derived(data: bytes) -> None:
    with pytest.raises(ConfigError, match="nothing that was sealed"):
        unseal(data, PASSPHRASE)


def test_what_was_cut_is_refused() -> None:
    with pytest.raises(ConfigError):
        unseal(seal(b"content", PASSPHRASE)[:40], PASSPHRASE)
