"""What the network key signs besides certificates: the list of edges, and which CA a tunnel has.

Each carries a revision: a node refuses one below the highest that it has seen.
"""

from __future__ import annotations

import functools
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.fabric.core.errors import DeniedError, WireError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates
from warren.fabric.identity.seals import Seal

EDGES_LIMIT = 64
"""Edges of one network: nodes attach to two, and the list is in every token."""

Id = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]{8,52}\Z")]
Host = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Counter = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Edge(msgspec.Struct, frozen=True):
    """One edge: where it is reached and the id in its certificate's name. `host`: address or DNS name."""

    id: Id
    host: Host
    port: Port
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""

    @property
    def server_name(self) -> str:
        """The DNS name by which its certificate is verified."""
        return certificates.edge_name(self.id)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class EdgeList(msgspec.Struct, frozen=True):
    """All edges of the network, best asked in this order unless told otherwise."""

    revision: Counter
    edges: Annotated[tuple[Edge, ...], msgspec.Meta(min_length=1, max_length=EDGES_LIMIT)]

    def find(self, edge: str) -> Edge | None:
        """The edge with this id."""
        return next((entry for entry in self.edges if entry.id == edge), None)


class TunnelStatement(msgspec.Struct, frozen=True, omit_defaults=True):
    """This tunnel has that CA. `authority`: SHA-256 of the CA certificate's DER."""

    tunnel: Id
    authority: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    revision: Counter
    former: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    """SHA-256 of the CA before it, which holds as well until `until`; empty: none does."""
    until: Counter = 0
    """Unix time, seconds."""


_EDGES = Seal(b"warren-edges/1", EdgeList, 32_768)
_TUNNEL = Seal(b"warren-tunnel/1", TunnelStatement, 1024)


def sign_edges(network_key: Ed25519PrivateKey, edges: EdgeList) -> bytes:
    """The list as nodes get it."""
    return _EDGES.sign(network_key, edges)


def verify_edges(signed: bytes, network: bytes) -> EdgeList:
    """The list, if the network (its certificate, DER) signed it. Raises DeniedError(BAD_PROOF)."""
    try:
        edges = _EDGES.read(signed)
    except WireError as error:
        raise DeniedError(Reason.BAD_PROOF, f"the list of edges can't be read: {error}") from None
    if not _EDGES.signed_by(signed, network_public(network)):
        raise DeniedError(Reason.BAD_PROOF, "the network key did not sign the list of edges")
    return edges


def sign_tunnel(
    network_key: Ed25519PrivateKey, tunnel: str, authority: bytes, revision: int, former: bytes = b"", until: int = 0
) -> bytes:
    """The statement that the tunnel with this id has the CA certificate `authority` (DER).

    `former`: the one before (DER), which holds beside it until `until` (Unix time, seconds).
    """
    before = certificates.fingerprint(former) if former else b""
    said = TunnelStatement(tunnel, certificates.fingerprint(authority), revision, before, until)
    return _TUNNEL.sign(network_key, said)


def verify_tunnel(statement: bytes, authority: bytes, network: bytes, *, lowest: int = 0) -> TunnelStatement:
    """What the statement says, if the network signed it and it speaks of the CA certificate `authority` (DER).

    `lowest`: the highest revision seen for this tunnel so far. Raises DeniedError(WRONG_TUNNEL).
    """
    try:
        said = _TUNNEL.read(statement)
    except WireError as error:
        raise DeniedError(Reason.WRONG_TUNNEL, str(error)) from None
    if not _TUNNEL.signed_by(statement, network_public(network)):
        raise DeniedError(Reason.WRONG_TUNNEL, "its statement has another signature")
    if said.authority != certificates.fingerprint(authority):
        raise DeniedError(Reason.WRONG_TUNNEL, "its statement is for another CA certificate")
    if said.revision < lowest:
        raise DeniedError(Reason.WRONG_TUNNEL, f"revision {said.revision} is older than {lowest}, seen before")
    return said


@functools.lru_cache(maxsize=8)
def network_public(network: bytes) -> bytes:
    """The raw public key of a network certificate (DER), verified once. Raises DeniedError(BAD_PROOF)."""
    return certificates.verify_authority(network)
