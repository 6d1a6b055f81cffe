"""An edge's state directory: what is in it, who it makes this edge, and the lock that a running edge holds.

network.pem   the network certificate          edge.pem, edge.key   leaf and edge CA; the leaf's key
edges.signed  the list of edges                grant.cert, .key     the edge CA's word on the grant key; the key
store.sqlite  tunnels, routes, devices         lock                 held while an edge runs or is restored
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from warren.edge.places import STORE_FILE
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.files import read_private
from warren.fabric.identity.grants import Issuer, Verifier
from warren.fabric.identity.statements import Edge, EdgeList, verify_edges

NETWORK = "network.pem"
EDGES = "edges.signed"
CHAIN = "edge.pem"
KEY = "edge.key"
GRANT_KEY = "grant.key"
GRANT_CERTIFICATE = "grant.cert"
STORE = STORE_FILE
LOCK = "lock"

CREDENTIALS = (NETWORK, EDGES, CHAIN, KEY, GRANT_KEY, GRANT_CERTIFICATE)
"""Files that make an edge this edge; a backup holds them and the store."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who this edge is; everything in it has been verified."""

    edge: Edge
    """Our own entry in the list."""
    edges: EdgeList
    signed_edges: bytes
    network: bytes
    """DER of the network certificate."""
    leaf: bytes
    """DER of our leaf, which proofs are made over."""
    chain: bytes
    """PEM of leaf and edge CA, for the engine's `ServerConfig`."""
    key: bytes
    """PEM of the leaf's private key."""
    issuer: Issuer
    """Signs grants and passes."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the network certificate in hex, as commands show it."""
        return certificates.fingerprint(self.network).hex()

    def verifier(self) -> Verifier:
        """Reads grants and passes of every edge of the network."""
        return Verifier(self.network, self.edges)

    def __repr__(self) -> str:
        return f"Credentials(edge={self.edge.id!r})"


def load_credentials(directory: Path) -> Credentials:
    """Reads what `warren edge init` or `restore` wrote. Raises ConfigError."""
    if not (directory / KEY).exists():
        raise ConfigError(f"there is no edge in {directory}: make one with `warren edge init`, or give --state-dir")
    certified = read_private(directory / GRANT_CERTIFICATE)
    signed_edges = read_private(directory / EDGES)
    network, *_ = _certificates(directory / NETWORK, 1)
    leaf, authority = _certificates(directory / CHAIN, 2)
    key, grant_key = keys.load(directory / KEY), keys.load(directory / GRANT_KEY)
    try:
        edges = verify_edges(signed_edges, network)
        edge = _find(edges, leaf, authority, network)
        own = certificates.verify_edge(leaf, authority, network, edge.id) == keys.public(key)
        issuer = Issuer(edge.id, grant_key, certified, authority)
        Verifier(network).permit(issuer.permit("0" * 64, "0" * 20, 1.0), 0.0)
    except DeniedError as error:
        raise ConfigError(f"the files in {directory} do not belong together: {error.detail or error}") from None
    if not own:
        raise ConfigError(f"{directory / KEY} does not belong to {directory / CHAIN}")
    return Credentials(
        edge=edge,
        edges=edges,
        signed_edges=signed_edges,
        network=network,
        leaf=leaf,
        chain=certificates.pem(leaf, authority),
        key=keys.private_pem(key),
        issuer=issuer,
    )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Held by whoever runs on the directory or replaces its contents. Raises ConfigError if somebody else does."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{directory / LOCK} can't be opened: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"an edge runs on {directory}: stop it first") from None
        yield
    finally:
        os.close(descriptor)


def _find(edges: EdgeList, leaf: bytes, authority: bytes, network: bytes) -> Edge:
    for edge in edges.edges:
        try:
            certificates.verify_edge(leaf, authority, network, edge.id)
        except DeniedError:
            continue
        return edge
    raise ConfigError("this edge is not on the network's list of edges, or its certificate is not of this network")


def _certificates(path: Path, count: int) -> list[bytes]:
    try:
        found = certificates.from_pem(read_private(path))
    except ValueError:
        found = []
    if len(found) != count:
        raise ConfigError(f"{path} is damaged: it should hold {count} certificate{'s' * (count > 1)} as PEM")
    return found
