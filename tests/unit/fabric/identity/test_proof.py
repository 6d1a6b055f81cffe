from __future__ import annotations

import pytest

from tests.unit.fabric.identity.world import WORLD
from warren.fabric.core.errors import DeniedError, WireError
from warren.fabric.core.messages import attachment, peer, session
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import keys, proof

CHALLENGE = bytes(range(32))
LABELS = (attachment.LABEL, session.LABEL, session.ENROL_LABEL, peer.LABEL)


def test_a_proof_holds_for_its_key_label_challenge_and_leaf_only() -> None:
    key, other = keys.generate(), keys.generate()
    signature = proof.sign(key, peer.LABEL, CHALLENGE, WORLD.connector_leaf)
    proof.verify(keys.public(key), signature, peer.LABEL, CHALLENGE, WORLD.connector_leaf)
    for public, signed, label, challenge, leaf in [
        (keys.public(other), signature, peer.LABEL, CHALLENGE, WORLD.connector_leaf),
        (keys.public(key), signature, session.LABEL, CHALLENGE, WORLD.connector_leaf),
        (keys.public(key), signature, peer.LABEL, bytes(32), WORLD.connector_leaf),
        (keys.public(key), signature, peer.LABEL, CHALLENGE, WORLD.edge_leaf),
        (keys.public(key), bytes(64), peer.LABEL, CHALLENGE, WORLD.connector_leaf),
        (keys.public(key), b"", peer.LABEL, CHALLENGE, WORLD.connector_leaf),
        (b"", signature, peer.LABEL, CHALLENGE, WORLD.connector_leaf),
    ]:
        with pytest.raises(DeniedError) as caught:
            proof.verify(public, signed, label, challenge, leaf)
        assert caught.value.reason is Reason.BAD_PROOF


def test_labels_differ() -> None:
    assert len(set(LABELS)) == len(LABELS)


def test_a_challenge_has_32_bytes() -> None:
    """Else bytes could move between label and challenge."""
    with pytest.raises(WireError):
        proof.sign(keys.generate(), peer.LABEL, b"short", b"leaf")
