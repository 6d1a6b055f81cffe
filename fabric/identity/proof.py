"""The signed challenge by which whoever opened a QUIC connection shows who it is (protocol.md, section 4).

    signature over: label ‖ challenge (32 bytes) ‖ SHA-256 of the leaf certificate (DER) that the signer saw

The label differs for attachment, session, peer connection and enrolment (messages/*.LABEL), so that no proof serves
for another; the leaf ties it to the server that the signer verified, so that nobody can pass a proof on.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.fabric.core.errors import DeniedError, WireError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import keys

CHALLENGE_LENGTH = 32


def sign(key: Ed25519PrivateKey, label: bytes, challenge: bytes, leaf: bytes) -> bytes:
    """64 bytes. `leaf`: DER of the server's certificate. Raises WireError for a challenge that is not 32 bytes."""
    return key.sign(_signed(label, challenge, leaf))


def verify(public: bytes, signature: bytes, label: bytes, challenge: bytes, leaf: bytes) -> None:
    """`public`: the raw key that has to have signed; `leaf`: our own, DER. Raises DeniedError(BAD_PROOF)."""
    if not keys.verified(public, signature, _signed(label, challenge, leaf)):
        raise DeniedError(Reason.BAD_PROOF)


def _signed(label: bytes, challenge: bytes, leaf: bytes) -> bytes:
    if len(challenge) != CHALLENGE_LENGTH:
        raise WireError(f"a challenge of {len(challenge)} bytes, {CHALLENGE_LENGTH} are needed")
    return label + challenge + hashlib.sha256(leaf).digest()
