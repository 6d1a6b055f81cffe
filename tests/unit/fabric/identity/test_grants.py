from __future__ import annotations

from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fabric.identity.world import DEVICE, NOW, OTHER, WORLD
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import grants, keys
from warren.fabric.identity.grants import EdgeTime, Grant, Issuer, Revision, Verifier, certify_grant_key
from warren.fabric.identity.statements import EdgeList

GRANT = WORLD.issuer.grant(WORLD.grant())
THUMBPRINT = keys.thumbprint(keys.public(DEVICE))
PASS = WORLD.issuer.permit(THUMBPRINT, WORLD.tunnel, NOW + 900)


def refused(data: bytes, reason: Reason = Reason.BAD_GRANT, now: float = NOW, verifier: Verifier | None = None) -> None:
    with pytest.raises(DeniedError) as caught:
        (verifier or Verifier(WORLD.network)).grant(data, now)
    assert caught.value.reason is reason


def test_a_grant_is_verified_with_nothing_but_the_network_certificate() -> None:
    assert Verifier(WORLD.network).grant(GRANT, NOW) == WORLD.grant()
    assert Verifier(WORLD.network, WORLD.edges).grant(GRANT, NOW) == WORLD.grant()
    assert len(GRANT) < 1200


def test_a_pass_is_verified_and_expires() -> None:
    verifier = Verifier(WORLD.network)
    said = verifier.permit(PASS, NOW)
    assert (said.thumbprint, said.tunnel) == (THUMBPRINT, WORLD.tunnel)
    with pytest.raises(DeniedError) as caught:
        verifier.permit(PASS, NOW + 900)
    assert caught.value.reason is Reason.GRANT_EXPIRED


def test_a_grant_expires_also_when_it_was_verified_before() -> None:
    verifier = Verifier(WORLD.network)
    verifier.grant(GRANT, NOW + 59.9)
    refused(GRANT, Reason.GRANT_EXPIRED, NOW + 60, verifier)
    refused(GRANT, Reason.GRANT_EXPIRED, float("nan"), verifier)


def test_a_pass_is_no_grant_and_a_grant_no_pass() -> None:
    verifier = Verifier(WORLD.network)
    verifier.permit(PASS, NOW)
    refused(PASS, verifier=verifier)
    verifier.grant(GRANT, NOW)
    with pytest.raises(DeniedError):
        verifier.permit(GRANT, NOW)


def test_forgeries_are_refused() -> None:
    refused(OTHER.issuer.grant(OTHER.grant()))
    own = keys.generate()
    refused(Issuer(WORLD.edge, own, WORLD.certified, WORLD.edge_ca).grant(WORLD.grant()))
    by_itself = certify_grant_key(own, WORLD.edge, keys.public(own))
    refused(Issuer(WORLD.edge, own, by_itself, WORLD.edge_ca).grant(WORLD.grant()))
    by_a_tunnel = certify_grant_key(WORLD.tunnel_key, WORLD.edge, keys.public(own))
    refused(Issuer(WORLD.edge, own, by_a_tunnel, WORLD.tunnel_ca).grant(WORLD.grant()))
    refused(Issuer(WORLD.edge, own, by_a_tunnel, WORLD.connector_leaf).grant(WORLD.grant()))


def test_an_edge_can_not_sign_in_the_name_of_another() -> None:
    refused(Issuer(OTHER.edge, WORLD.grant_key, WORLD.certified, WORLD.edge_ca).grant(WORLD.grant()))


def test_an_edge_that_the_list_drops_is_refused_at_once() -> None:
    verifier = Verifier(WORLD.network, WORLD.edges)
    verifier.grant(GRANT, NOW)
    verifier.update(EdgeList(2, OTHER.edges.edges))
    refused(GRANT, verifier=verifier)
    verifier.update(WORLD.edges)  # older: ignored
    refused(GRANT, verifier=verifier)


def test_the_same_bytes_are_verified_once_and_the_table_is_bounded() -> None:
    verifier = Verifier(WORLD.network)
    verifier.grant(GRANT, NOW)
    with mock.patch.object(keys, "verified", side_effect=AssertionError):
        verifier.grant(GRANT, NOW)
    with mock.patch.object(grants, "VERIFIED_LIMIT", 4):
        for low in range(10):
            verifier.grant(WORLD.issuer.grant(msgspec.structs.replace(WORLD.grant(), low=low)), NOW)
    assert len(verifier._verified) == 4
    assert len(verifier._chains) == 1


def test_what_was_refused_is_not_remembered() -> None:
    verifier = Verifier(WORLD.network)
    for index in range(50):
        refused(GRANT[:-1] + bytes([GRANT[-1] ^ (index + 1)]), verifier=verifier)
    assert not verifier._verified


def test_a_grant_covers_its_destination_only() -> None:
    grant = msgspec.structs.replace(WORLD.grant(), low=443, high=445)
    assert grant.covers("tcp", "10.10.0.5", "", 443)
    assert grant.covers("tcp", "10.10.0.5", "", 445)
    assert not grant.covers("tcp", "10.10.0.5", "", 446)
    assert not grant.covers("tcp", "10.10.0.6", "", 443)
    assert not grant.covers("udp", "10.10.0.5", "", 443)
    assert not grant.covers("tcp", "", "payroll.internal", 443)
    assert not grant.covers("tcp", "10.10.0.5", "payroll.internal", 443)


@pytest.mark.parametrize(
    "change",
    [{"host": "x"}, {"address": ""}, {"low": 9, "high": 8}, {"thumbprint": "AB"}, {"tunnel": ""}, {"high": 65_536}],
)
def test_a_grant_that_breaks_the_rules_is_refused_though_signed(change: dict[str, Any]) -> None:
    class Loose(msgspec.Struct, frozen=True):
        said: dict[str, Any]
        chain: Any

    said = msgspec.to_builtins(WORLD.grant()) | change
    chain = WORLD.issuer._chain
    body = msgspec.msgpack.encode([said, chain])
    refused(WORLD.grant_key.sign(b"warren-grant/1\0" + body) + body)


def test_revisions_are_ordered_by_epoch_first() -> None:
    assert Revision(1, 9) < Revision(2, 0) < Revision(2, 1)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_grant_or_denied(data: bytes) -> None:
    refused(data)
    refused(GRANT[:64] + data)


@given(st.integers(0, 8 * len(GRANT) - 1))
def test_any_flipped_bit_of_a_grant_is_refused(bit: int) -> None:
    data = bytearray(GRANT)
    data[bit // 8] ^= 1 << bit % 8
    refused(bytes(data))


@given(st.integers(0, len(GRANT) - 1))
def test_any_truncated_grant_is_refused(length: int) -> None:
    refused(GRANT[:length])


def test_time_at_an_edge_goes_on_from_the_newest_grant() -> None:
    clock = EdgeTime()
    assert clock.now(WORLD.edge, 5.0) is None
    newer: Grant = msgspec.structs.replace(WORLD.grant(), issued=NOW + 100)
    clock.saw(newer, 1000.0)
    clock.saw(WORLD.grant(), 1001.0)  # an old grant, shown later, does not set the clock back
    assert clock.now(WORLD.edge, 1030.0) == NOW + 130
    assert clock.now(OTHER.edge, 1030.0) is None
