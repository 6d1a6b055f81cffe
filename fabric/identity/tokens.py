"""The two strings that people copy: the enrolment key of a device and the token of a tunnel.

    warren-enrol-BASE64 · warren-tunnel-BASE64      url-safe, without padding; white space is ignored
    BASE64 of: version (1 byte) | length of the body (2) | checksum (8) | body (MessagePack)

Length and checksum (SHA-256 of version, length and body, the first 8 bytes) only tell a bad paste from a bad token;
what the body says is verified against the network certificate in it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from typing import Annotated, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.statements import Counter, EdgeList, Id, TunnelStatement, verify_edges, verify_tunnel

ENROLMENT_PREFIX = "warren-enrol-"
TUNNEL_PREFIX = "warren-tunnel-"
TOKEN_LIMIT = 65_536
"""Characters of a token that are looked at: one with a single edge has about 2,000."""
SECRET_LENGTH = 32

_NAMES = {ENROLMENT_PREFIX: "an enrolment key", TUNNEL_PREFIX: "a tunnel token"}
_VERSION = 1
_LENGTH = 2
_CHECKSUM = 8
_HEADER = 1 + _LENGTH + _CHECKSUM

_Certificate = Annotated[bytes, msgspec.Meta(min_length=1, max_length=certificates.CERTIFICATE_LIMIT)]
_Secret = Annotated[bytes, msgspec.Meta(min_length=SECRET_LENGTH, max_length=SECRET_LENGTH)]


class EnrolmentKey(msgspec.Struct, frozen=True):
    """Brings one device in, once. Verified when it comes out of `parse_enrolment_key`."""

    network: _Certificate
    """DER of the network certificate."""
    signed_edges: bytes
    secret: _Secret
    """Shown to the judge, which has its hash only (`secret_hash`)."""
    expires: Counter
    """Unix time, seconds."""

    def edges(self) -> EdgeList:
        """The network's edges, in the order to be tried. Raises DeniedError, never after parsing."""
        return verify_edges(self.signed_edges, self.network)

    def __str__(self) -> str:
        """The string to be copied."""
        return _wrap(ENROLMENT_PREFIX, self)

    def __repr__(self) -> str:
        return f"EnrolmentKey(expires={self.expires})"


class TunnelToken(msgspec.Struct, frozen=True):
    """Runs connectors of one tunnel. Verified when it comes out of `parse_tunnel_token`."""

    network: _Certificate
    """DER of the network certificate."""
    signed_edges: bytes
    tunnel: Id
    name: Annotated[str, msgspec.Meta(max_length=64)]
    authority: _Certificate
    """DER of the tunnel CA's certificate."""
    private: _Secret
    """The tunnel CA's private key, 32 raw bytes."""
    statement: bytes
    """The network key's word on that CA (`statements.verify_tunnel`)."""

    def edges(self) -> EdgeList:
        """The network's edges, in the order to be tried. Raises DeniedError, never after parsing."""
        return verify_edges(self.signed_edges, self.network)

    def authority_key(self) -> Ed25519PrivateKey:
        """The tunnel CA's key."""
        return keys.from_raw(self.private)

    def verify(self) -> TunnelStatement:
        """Raises DeniedError or ConfigError unless everything in the token belongs together."""
        said = verify_tunnel(self.statement, self.authority, self.network)
        if said.tunnel != self.tunnel:
            raise ConfigError("the token's statement is for another tunnel")
        if certificates.verify_authority(self.authority) != keys.public(self.authority_key()):
            raise ConfigError("the token's key does not belong to its certificate")
        return said

    def make_leaf(self, public: bytes) -> bytes:
        """DER of a connector's leaf for its own raw public key."""
        return certificates.make_connector(self.authority_key(), self.authority, self.tunnel, public)

    def __str__(self) -> str:
        """The string to be copied."""
        return _wrap(TUNNEL_PREFIX, self)

    def __repr__(self) -> str:
        return f"TunnelToken(tunnel={self.tunnel!r}, name={self.name!r})"


def new_secret() -> bytes:
    """The secret of a new enrolment key."""
    return secrets.token_bytes(SECRET_LENGTH)


def secret_hash(secret: bytes) -> str:
    """What the judge keeps of an enrolment secret: SHA-256 in hex (it is random, so it needs no salt)."""
    return hashlib.sha256(secret).hexdigest()


def parse_enrolment_key(text: str) -> EnrolmentKey:
    """Reads and verifies; expiry is the caller's to look at. Raises ConfigError, never anything else."""
    key = _unwrap(text, ENROLMENT_PREFIX, "enrolment key", EnrolmentKey)
    try:
        key.edges()
    except DeniedError as error:
        raise ConfigError(f"the enrolment key is not a valid one: {error.detail or error}") from None
    return key


def parse_tunnel_token(text: str) -> TunnelToken:
    """Reads and verifies. Raises ConfigError, never anything else."""
    token = _unwrap(text, TUNNEL_PREFIX, "tunnel token", TunnelToken)
    try:
        token.edges()
        token.verify()
    except DeniedError as error:
        raise ConfigError(f"the tunnel token is not a valid one: {error.detail or error}") from None
    return token


# ---- the string ----

_T = TypeVar("_T", bound=msgspec.Struct)


def _wrap(prefix: str, token: msgspec.Struct) -> str:
    body = msgspec.msgpack.encode(token)
    start = bytes([_VERSION]) + len(body).to_bytes(_LENGTH, "big")
    data = start + _checksum(start + body) + body
    return prefix + _encode(data)


def _unwrap(text: str, prefix: str, what: str, kind: type[_T]) -> _T:
    encoded = _encoded(text, prefix, what)
    data = _decoded(encoded, what)
    if data and data[0] != _VERSION:
        raise ConfigError(f"the {what} has version {data[0]}, this warren reads version {_VERSION}: update it")
    length = int.from_bytes(data[1 : 1 + _LENGTH], "big")
    if len(data) < _HEADER or len(data) < _HEADER + length:
        raise ConfigError(f"the {what} is cut short: copy all of it, in one piece")
    if len(data) > _HEADER + length:
        raise ConfigError(f"the {what} has something after its end: copy the token and nothing else")
    start, body = data[: 1 + _LENGTH], data[_HEADER:]
    if _checksum(start + body) != data[1 + _LENGTH : _HEADER] or _encode(data) != encoded:
        raise ConfigError(f"the {what} has a wrong character in it: copy it again")
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f"the {what} can't be read: it was not made by this kind of program") from None


def _encoded(text: str, prefix: str, what: str) -> str:
    """What follows the prefix."""
    if len(text) > TOKEN_LIMIT:
        raise ConfigError(f"that is no {what}: it has more than {TOKEN_LIMIT} characters")
    text = "".join(text.split())
    if not text:
        raise ConfigError(f"the {what} is empty")
    for other, name in _NAMES.items():
        if other != prefix and text.startswith(other):
            raise ConfigError(f"that is {name}, and not {_NAMES[prefix]}")
    if prefix.startswith(text):
        raise ConfigError(f"the {what} is cut short: copy all of it, in one piece")
    if not text.startswith(prefix):
        raise ConfigError(f"that is no {what}: one begins with {prefix}")
    return text.removeprefix(prefix)


def _decoded(encoded: str, what: str) -> bytes:
    """One character more than whole bytes need, as a truncated string may have, is left out."""
    whole = encoded[:-1] if len(encoded) % 4 == 1 else encoded
    try:
        return base64.b64decode(whole + "=" * (-len(whole) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(f"the {what} has a character in it that does not belong there: copy it again") from None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_CHECKSUM]
