"""Another token: another leaf for the same key, and only for the same tunnel."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.fabric.identity.world import OTHER, WORLD
from warren.connector.face import check_successor, make_face
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity import certificates, keys, statements
from warren.fabric.identity.tokens import TunnelToken


def rotated(revision: int = 2) -> TunnelToken:
    key = keys.generate()
    authority = certificates.make_tunnel_authority(key, WORLD.tunnel)
    statement = statements.sign_tunnel(WORLD.network_key, WORLD.tunnel, authority, revision, WORLD.tunnel_ca, 1000)
    return msgspec.structs.replace(
        WORLD.token(), authority=authority, private=keys.private_raw(key), statement=statement
    )


def test_the_key_stays_and_the_leaf_is_under_the_new_authority() -> None:
    key, token = keys.generate(), rotated()
    before, after = make_face(key, WORLD.token()), make_face(key, token)
    assert before.identity.key == after.identity.key == keys.public(key)
    assert after.identity.certificates == (after.leaf, token.authority)
    assert certificates.verify_connector(after.leaf, token.authority, WORLD.tunnel) == keys.public(key)
    assert all(server.chain == certificates.pem(after.leaf) for server in after.servers)


def test_only_a_newer_token_of_the_same_tunnel_follows() -> None:
    check_successor(rotated(), WORLD.token())
    check_successor(WORLD.token(), WORLD.token())
    with pytest.raises(ConfigError, match="older"):
        check_successor(WORLD.token(), rotated())
    with pytest.raises(ConfigError, match="another tunnel"):
        check_successor(OTHER.token(), WORLD.token())
