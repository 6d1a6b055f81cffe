from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fabric.identity.world import OTHER, WORLD
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity import certificates, keys, tokens
from warren.fabric.identity.tokens import parse_enrolment_key, parse_tunnel_token

TOKEN = str(WORLD.token())
KEY = str(WORLD.enrolment_key())


def test_a_token_comes_back_and_makes_leaves_that_verify() -> None:
    token = parse_tunnel_token(TOKEN)
    assert token == WORLD.token()
    assert token.edges() == WORLD.edges
    raw = keys.public(keys.generate())
    assert certificates.verify_connector(token.make_leaf(raw), token.authority, token.tunnel) == raw
    assert TOKEN.startswith("warren-tunnel-")
    assert len(TOKEN) < 2200


def test_an_enrolment_key_comes_back() -> None:
    key = parse_enrolment_key(KEY)
    assert str(key) == KEY
    assert key.edges() == WORLD.edges
    assert tokens.secret_hash(key.secret) == tokens.secret_hash(parse_enrolment_key(KEY).secret)


def test_wrapped_lines_and_spaces_around_do_not_matter() -> None:
    wrapped = "\n".join(TOKEN[start : start + 76] for start in range(0, len(TOKEN), 76))
    assert parse_tunnel_token(f"  {wrapped}\r\n") == WORLD.token()


def test_secrets_are_not_in_the_repr() -> None:
    assert "private" not in repr(parse_tunnel_token(TOKEN))
    assert "secret" not in repr(parse_enrolment_key(KEY))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("hello", "begins with warren-tunnel-"),
        ("warren-tun", "cut short"),
        ("warren-tunnel-", "cut short"),
        (TOKEN[:-1], "cut short"),
        (TOKEN[:500], "cut short"),
        (TOKEN + "AAAA", "after its end"),
        (TOKEN[:300] + ("A" if TOKEN[300] != "A" else "B") + TOKEN[301:], "wrong character"),
        (TOKEN[:300] + "é" + TOKEN[301:], "does not belong"),
        (KEY, "that is an enrolment key, and not a tunnel token"),
        ("warren-tunnel-" + "C" + TOKEN[15:], "update it"),
        ("x" * (tokens.TOKEN_LIMIT + 1), "more than"),
    ],
)
def test_a_bad_paste_is_told_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_tunnel_token(text)
    assert "\n" not in str(caught.value)
    assert TOKEN[20:60] not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"network": OTHER.network},
        {"signed_edges": OTHER.signed_edges},
        {"tunnel": OTHER.tunnel},
        {"authority": OTHER.tunnel_ca},
        {"private": keys.private_raw(OTHER.tunnel_key)},
        {"statement": OTHER.statement},
        {"authority": WORLD.connector_leaf},
        {"tunnel": "../../etc/passwd"},
        {"private": b"short"},
    ],
)
def test_a_token_whose_parts_do_not_belong_together_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tunnel_token(str(msgspec.structs.replace(WORLD.token(), **change)))
    assert "\n" not in str(caught.value)


def test_an_enrolment_key_with_strange_edges_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a valid one"):
        parse_enrolment_key(str(msgspec.structs.replace(WORLD.enrolment_key(), network=OTHER.network)))


ALPHABET = string.ascii_letters + string.digits + "-_="


@given(st.one_of(st.text(), st.text(alphabet=ALPHABET).map("warren-tunnel-".__add__)))
def test_any_text_is_a_token_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_tunnel_token(text)
    with pytest.raises(ConfigError):
        parse_enrolment_key(text.replace("tunnel", "enrol"))


@given(st.binary(max_size=400))
def test_any_body_is_a_token_or_a_config_error(body: bytes) -> None:
    wrapped = tokens._wrap(tokens.TUNNEL_PREFIX, msgspec.Raw(body))  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        parse_tunnel_token(wrapped)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(ALPHABET))
def test_any_other_character_anywhere_is_refused(index: int, character: str) -> None:
    changed = TOKEN[:index] + character + TOKEN[index + 1 :]
    if changed != TOKEN:
        with pytest.raises(ConfigError):
            parse_tunnel_token(changed)


@given(st.integers(0, len(KEY) - 1))
def test_any_truncation_says_that_it_is_cut_short(length: int) -> None:
    with pytest.raises(ConfigError, match=r"cut short|empty"):
        parse_enrolment_key(KEY[:length])
