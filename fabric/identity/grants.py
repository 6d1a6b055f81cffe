"""Grants and passes: the edge's signed, short-lived word, verified offline (protocol.md, section 4).

    seal by the grant key over {grant or pass, the grant key's certificate}
        └─ GrantKey{edge, public key}: sealed by the edge CA
              └─ the edge CA's X.509 certificate, signed by the network key

A grant carries that chain (about 600 of its 1,000 bytes), so that a connector needs its token's network certificate
and nothing else. Chains and grants that were verified once are remembered, in bounded tables.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.fabric.core.errors import DeniedError, WireError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.seals import Seal
from warren.fabric.identity.statements import Counter, EdgeList, Id, network_public

GRANT_LIMIT = 8192
"""Bytes of an encoded grant or pass that is looked at; honest ones have about 1,000."""
VERIFIED_LIMIT = 4096
"""Verified grants and passes that are remembered: a few for each device that is busy, about 1 KiB each."""
CHAINS_LIMIT = 64
"""Verified chains that are remembered: one for each edge."""

_Thumbprint = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
_Word = Annotated[str, msgspec.Meta(max_length=255)]


class Revision(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A state of the store. `epoch`: ms of its `init` or `restore`, so a restored store is never taken for older."""

    epoch: Counter
    counter: Counter


class Grant(msgspec.Struct, frozen=True):
    """This device may open flows to exactly this destination."""

    device: _Word
    thumbprint: _Thumbprint
    """Of the device key, which the peer connection has to have proved."""
    user: _Word
    tunnel: Id
    vnet: _Word
    protocol: Literal["tcp", "udp", "icmp"]
    address: Annotated[str, msgspec.Meta(max_length=45)]
    """The destination's IP address; "" where `host` says it."""
    host: Annotated[str, msgspec.Meta(max_length=253)]
    """The name to resolve in the connector's network; "" where `address` says it."""
    low: _Port
    high: _Port
    """Ports low to high, both included; 0 and 0 for ICMP."""
    rule: _Word
    route: _Word
    revision: Revision
    issued: float
    """Unix time of the edge that signed, seconds."""
    expires: float
    """By that same clock; limits the opening of flows only."""
    key_id: _Thumbprint
    """Thumbprint of the grant key."""
    edge: Id

    def __post_init__(self) -> None:
        if bool(self.address) == bool(self.host):
            raise ValueError("a grant names an address or a host, one of them")
        if self.low > self.high:
            raise ValueError("a grant's ports run from low to high")

    def covers(self, protocol: str, address: str, host: str, port: int) -> bool:
        """Whether a flow to this destination is what was granted (one of address and host is "")."""
        same = self.protocol == protocol and self.address == address and self.host == host
        return same and self.low <= port <= self.high


class Pass(msgspec.Struct, frozen=True):
    """The node with this key may ask switches for circuits to this tunnel."""

    thumbprint: _Thumbprint
    tunnel: Id
    expires: float
    key_id: _Thumbprint
    edge: Id


class GrantKey(msgspec.Struct, frozen=True):
    """The edge CA's word: grants of this edge are signed with this key."""

    edge: Id
    public: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class _Chain(msgspec.Struct, frozen=True, array_like=True):
    grant_key: bytes
    authority: bytes


class _Granted(msgspec.Struct, frozen=True, array_like=True):
    said: Grant
    chain: _Chain


class _Passed(msgspec.Struct, frozen=True, array_like=True):
    said: Pass
    chain: _Chain


_GRANT_KEY = Seal(b"warren-grant-key/1", GrantKey, 1024)
_GRANT = Seal(b"warren-grant/1", _Granted, GRANT_LIMIT)
_PASS = Seal(b"warren-pass/1", _Passed, GRANT_LIMIT)


def certify_grant_key(authority_key: Ed25519PrivateKey, edge: str, public: bytes) -> bytes:
    """The edge CA's statement on the grant key of the edge with this id."""
    return _GRANT_KEY.sign(authority_key, GrantKey(edge, public))


class Issuer:
    """Signs what the judge decided. `grant_key`: as `certify_grant_key` made it; `authority`: DER of the edge CA."""

    def __init__(self, edge: str, key: Ed25519PrivateKey, grant_key: bytes, authority: bytes) -> None:
        self.edge = edge
        self.key_id = keys.thumbprint(keys.public(key))
        self._key = key
        self._chain = _Chain(grant_key, authority)

    def grant(self, grant: Grant) -> bytes:
        """The grant, signed; its `edge` and `key_id` are set to this issuer's."""
        grant = msgspec.structs.replace(grant, edge=self.edge, key_id=self.key_id)
        return _GRANT.sign(self._key, _Granted(grant, self._chain))

    def permit(self, thumbprint: str, tunnel: str, expires: float) -> bytes:
        """A pass, signed. `thumbprint`: of the node's key; `expires`: Unix time of this edge."""
        said = Pass(thumbprint, tunnel, expires, self.key_id, self.edge)
        return _PASS.sign(self._key, _Passed(said, self._chain))


_W = TypeVar("_W", Grant, Pass)


class Verifier:
    """Reads grants and passes. `network`: DER of the network certificate; `edges`: the list, where one is known: what
    was signed by an edge that is not on it is refused."""

    def __init__(self, network: bytes, edges: EdgeList | None = None) -> None:
        self._network = network
        network_public(network)
        self._edges = edges
        self._chains: dict[bytes, GrantKey] = {}
        self._verified: dict[bytes, Grant | Pass] = {}

    def update(self, edges: EdgeList) -> None:
        """A newer list of edges; one with a lower revision is ignored."""
        if self._edges is None or edges.revision >= self._edges.revision:
            self._edges = edges

    def grant(self, data: bytes, now: float) -> Grant:
        """`now`: Unix time of the edge that signed, as well as it is known here.

        Raises DeniedError: BAD_GRANT, GRANT_EXPIRED.
        """
        return _unexpired(self.read_grant(data), now)

    def permit(self, data: bytes, now: float) -> Pass:
        """As `grant`, for a pass."""
        return _unexpired(self._read(_PASS, data, Pass), now)

    def read_grant(self, data: bytes) -> Grant:
        """A grant whatever the time. Raises DeniedError(BAD_GRANT)."""
        return self._read(_GRANT, data, Grant)

    def _read(self, seal: Seal[Any], data: bytes, kind: type[_W]) -> _W:
        digest = hashlib.sha256(data).digest()
        said = self._verified.get(digest)
        if not isinstance(said, kind):
            said = self._verify(seal, data)
            _remember(self._verified, digest, said, VERIFIED_LIMIT)
        if self._edges is not None and self._edges.find(said.edge) is None:
            raise DeniedError(Reason.BAD_GRANT, "its edge is not on the network's list")
        return said

    def _verify(self, seal: Seal[Any], data: bytes) -> Any:
        try:
            sealed = seal.read(data)
        except WireError as error:
            raise DeniedError(Reason.BAD_GRANT, str(error)) from None
        said, key = sealed.said, self._grant_key(sealed.chain)
        if not seal.signed_by(data, key.public):
            raise DeniedError(Reason.BAD_GRANT)
        if said.edge != key.edge or said.key_id != keys.thumbprint(key.public):
            raise DeniedError(Reason.BAD_GRANT, "it names another edge than the one that signed it")
        return said

    def _grant_key(self, chain: _Chain) -> GrantKey:
        index = hashlib.sha256(chain.authority).digest() + chain.grant_key
        key = self._chains.get(index)
        if key is None:
            key = self._verify_chain(chain)
            _remember(self._chains, index, key, CHAINS_LIMIT)
        return key

    def _verify_chain(self, chain: _Chain) -> GrantKey:
        try:
            authority = certificates.verify_authority(chain.authority, self._network)
            key = _GRANT_KEY.read(chain.grant_key)
        except (DeniedError, WireError) as error:
            raise DeniedError(Reason.BAD_GRANT, str(error)) from None
        if not _GRANT_KEY.signed_by(chain.grant_key, authority):
            raise DeniedError(Reason.BAD_GRANT, "the edge CA did not certify its key")
        return key


class EdgeTime:
    """What time it is at each edge, from the signed times in its grants, kept going on CLOCK_BOOTTIME; so that this
    host's wall clock does not matter (protocol.md, section 4, "Expiry"). `elapsed`: seconds of that clock."""

    def __init__(self) -> None:
        self._offsets: dict[str, float] = {}

    def saw(self, grant: Grant, elapsed: float) -> None:
        """A verified grant: its edge's clock had reached `issued`."""
        offset = grant.issued - elapsed
        known = self._offsets.get(grant.edge)
        if known is None and len(self._offsets) >= CHAINS_LIMIT:
            self._offsets.pop(next(iter(self._offsets)))
        self._offsets[grant.edge] = offset if known is None else max(known, offset)

    def forget(self, edge: str) -> None:
        """Its clock is another one from now on."""
        self._offsets.pop(edge, None)

    def now(self, edge: str, elapsed: float) -> float | None:
        """The edge's Unix time, or a little less; None if it has signed nothing yet."""
        offset = self._offsets.get(edge)
        return None if offset is None else offset + elapsed


def _unexpired(said: _W, now: float) -> _W:
    if not now < said.expires:  # also for NaN
        raise DeniedError(Reason.GRANT_EXPIRED)
    return said


_K = TypeVar("_K")
_V = TypeVar("_V")


def _remember(table: dict[_K, _V], key: _K, value: _V, limit: int) -> None:
    """The oldest entry makes room."""
    if len(table) >= limit:
        table.pop(next(iter(table)))
    table[key] = value
