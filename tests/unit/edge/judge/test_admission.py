"""Who a node is: each way in which a proof can be wrong."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.fabric.identity.world import DEVICE, OTHER, WORLD
from warren.edge.judge.admission import ConnectorNode, DeviceNode, Doorkeeper, Shown
from warren.edge.store.records import Device, Tunnel
from warren.edge.store.snapshot import build
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages import attachment, session
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates, keys, proof, statements

CHALLENGE = b"c" * 32
LAPTOP = Device(
    id="d" * 20, name="laptop", thumbprint=keys.thumbprint(keys.public(DEVICE)), host="", vnet="default", user="",
    groups=(), tags=(), created=1, expires=2, enrolled=2, seen=2, revision=3,
)  # fmt: skip
OFFICE = Tunnel(WORLD.tunnel, "office", WORLD.tunnel_ca, WORLD.statement, 1, 1, 1)


def doorkeeper(
    tunnels: tuple[Tunnel, ...] = (OFFICE,), devices: tuple[Device, ...] = (LAPTOP,), now: float = 0.0
) -> Doorkeeper:
    return Doorkeeper(WORLD.network, WORLD.edge_leaf, lambda: build(1, 1, tunnels, [], devices), lambda: now)


def agent(key: Ed25519PrivateKey = DEVICE, label: bytes = session.LABEL, leaf: bytes = WORLD.edge_leaf) -> Shown:
    return Shown("agent", keys.public(key), proof.sign(key, label, CHALLENGE, leaf), (), b"")


def connector(**changes: Any) -> Shown:
    key: Ed25519PrivateKey = changes.pop("key", WORLD.connector_key)
    shown = {"certificates": (WORLD.connector_leaf, WORLD.tunnel_ca), "statement": WORLD.statement, **changes}
    signature = proof.sign(key, session.LABEL, CHALLENGE, WORLD.edge_leaf)
    return Shown("connector", keys.public(key), signature, **shown)


def refusal(shown: Shown, at: Doorkeeper | None = None) -> Reason:
    with pytest.raises(DeniedError) as denied:
        (at or doorkeeper()).identify(session.LABEL, CHALLENGE, shown)
    return denied.value.reason


def test_a_device_and_a_connector_are_known() -> None:
    assert doorkeeper().identify(session.LABEL, CHALLENGE, agent()) == DeviceNode(LAPTOP, keys.public(DEVICE))
    known = doorkeeper().identify(session.LABEL, CHALLENGE, connector())
    shown = certificates.fingerprint(WORLD.tunnel_ca)
    assert known == ConnectorNode(OFFICE, keys.public(WORLD.connector_key), shown, 1)


def test_a_device_that_did_not_enrol_or_was_deleted_is_refused() -> None:
    assert refusal(agent(keys.generate())) is Reason.DEVICE_UNKNOWN
    assert refusal(agent(), doorkeeper(devices=())) is Reason.DEVICE_UNKNOWN


def test_a_proof_for_another_label_or_edge_is_refused() -> None:
    assert refusal(agent(label=attachment.LABEL)) is Reason.BAD_PROOF
    assert refusal(agent(leaf=OTHER.edge_leaf)) is Reason.BAD_PROOF


def test_a_device_key_is_shown_by_its_owner_only() -> None:
    thief = agent(keys.generate())
    assert refusal(Shown("agent", keys.public(DEVICE), thief.signature, (), b"")) is Reason.BAD_PROOF


def test_a_device_that_poses_as_a_connector_is_refused() -> None:
    assert refusal(connector(key=DEVICE)) is Reason.BAD_PROOF
    assert refusal(connector(key=DEVICE, certificates=())) is Reason.BAD_PROOF


def test_a_connector_that_poses_as_a_device_is_refused() -> None:
    assert refusal(agent(WORLD.connector_key)) is Reason.DEVICE_UNKNOWN


def test_an_edge_that_poses_as_a_connector_is_refused() -> None:
    """It has a leaf under the edge CA, and the tunnel's statement, which every connector shows it."""
    for chain in ((WORLD.edge_leaf, WORLD.edge_ca), (WORLD.edge_leaf, WORLD.tunnel_ca)):
        assert refusal(connector(key=WORLD.edge_key, certificates=chain)) in (Reason.WRONG_TUNNEL, Reason.BAD_PROOF)


def test_a_tunnel_of_somebodys_own_making_is_refused() -> None:
    key = keys.generate()
    authority = certificates.make_tunnel_authority(key, WORLD.tunnel)
    leaf = certificates.make_connector(key, authority, WORLD.tunnel, keys.public(WORLD.connector_key))
    own = statements.sign_tunnel(key, WORLD.tunnel, authority, 1)
    for statement in (own, WORLD.statement, OTHER.statement, b""):
        assert refusal(connector(certificates=(leaf, authority), statement=statement)) is Reason.WRONG_TUNNEL


def test_a_connector_of_another_network_is_refused() -> None:
    strange = connector(
        key=OTHER.connector_key, certificates=(OTHER.connector_leaf, OTHER.tunnel_ca), statement=OTHER.statement
    )
    assert refusal(strange) is Reason.WRONG_TUNNEL


NEXT = keys.generate()
NEXT_CA = certificates.make_tunnel_authority(NEXT, WORLD.tunnel)
ROTATED = statements.sign_tunnel(WORLD.network_key, WORLD.tunnel, NEXT_CA, 2, WORLD.tunnel_ca, 1000)


def admitted(at: Doorkeeper, shown: Shown) -> int:
    node = at.identify(session.LABEL, CHALLENGE, shown)
    assert isinstance(node, ConnectorNode)
    return node.revision


def test_a_deleted_tunnel_and_a_replaced_token_are_refused() -> None:
    assert refusal(connector(), doorkeeper(tunnels=())) is Reason.WRONG_TUNNEL
    newer = Tunnel(WORLD.tunnel, "office", NEXT_CA, ROTATED, 2, 1, 1)
    assert refusal(connector(), doorkeeper(tunnels=(newer,))) is Reason.WRONG_TUNNEL


def test_both_keys_hold_until_the_old_one_ends() -> None:
    both = Tunnel(WORLD.tunnel, "office", NEXT_CA, ROTATED, 2, 1, 1, WORLD.tunnel_ca, 1000)
    leaf = certificates.make_connector(NEXT, NEXT_CA, WORLD.tunnel, keys.public(WORLD.connector_key))
    new = connector(certificates=(leaf, NEXT_CA), statement=ROTATED)
    assert admitted(doorkeeper((both,), now=999.0), connector()) == 1
    assert admitted(doorkeeper((both,), now=999.0), new) == admitted(doorkeeper((both,), now=1000.0), new) == 2
    assert refusal(connector(), doorkeeper((both,), now=1000.0)) is Reason.WRONG_TUNNEL


def test_finishing_turns_away_the_old_key_and_not_the_new_one() -> None:
    only = Tunnel(WORLD.tunnel, "office", NEXT_CA, b"statement of revision 3", 3, 1, 1)
    leaf = certificates.make_connector(NEXT, NEXT_CA, WORLD.tunnel, keys.public(WORLD.connector_key))
    new = connector(certificates=(leaf, NEXT_CA), statement=ROTATED)
    assert admitted(doorkeeper((only,)), new) == 2
    assert refusal(connector(), doorkeeper((only,))) is Reason.WRONG_TUNNEL


def test_a_token_newer_than_a_restored_store_is_admitted() -> None:
    leaf = certificates.make_connector(NEXT, NEXT_CA, WORLD.tunnel, keys.public(WORLD.connector_key))
    assert admitted(doorkeeper(), connector(certificates=(leaf, NEXT_CA), statement=ROTATED)) == 2
