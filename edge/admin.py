"""The administrator's keys: made by `warren edge init`, kept in a directory of the administrator's, shown to no edge.

network.key, network.pem   the root of trust         edge-ca.key, edge-ca.pem   certifies edges
edges.signed               the list of edges         revisions.json         of tunnels that were rotated from here
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.edge import state
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.files import private_directory, read_private, write_private
from warren.fabric.identity.grants import certify_grant_key
from warren.fabric.identity.statements import (
    EDGES_LIMIT,
    Edge,
    EdgeList,
    sign_edges,
    sign_tunnel,
    verify_edges,
    verify_tunnel,
)
from warren.fabric.identity.tokens import EnrolmentKey, TunnelToken, new_secret

ADMIN_DIRECTORY = Path("~/.config/warren/admin")
ENROLMENT_SECONDS = 3600
"""How long an enrolment key works."""

NETWORK_KEY = "network.key"
NETWORK = "network.pem"
AUTHORITY_KEY = "edge-ca.key"
AUTHORITY = "edge-ca.pem"
EDGES = "edges.signed"
REVISIONS = "revisions.json"
FILES = (NETWORK_KEY, NETWORK, AUTHORITY_KEY, AUTHORITY, EDGES)

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,62})")


@dataclass(frozen=True, slots=True)
class NewTunnel:
    """A tunnel that the edge does not know yet: what it gets to know, and the token that it does not."""

    id: str
    name: str
    authority: bytes
    statement: bytes
    revision: int
    token: TunnelToken


@dataclass(frozen=True, slots=True)
class KnownTunnel:
    """A tunnel as the edge shows it, not yet verified."""

    id: str
    name: str
    authority: bytes
    statement: bytes


@dataclass(frozen=True, slots=True)
class NewEdge:
    """An edge that nobody knows yet. `credentials`: files for its host; `signed`: the list with it."""

    edge: Edge
    signed: bytes
    credentials: dict[str, bytes]


class Administrator:
    """The keys in one directory. Raises ConfigError when they can't be read or do not belong together."""

    def __init__(self, directory: Path) -> None:
        if not (directory / NETWORK).exists():
            raise ConfigError(
                f"the administrator's keys are not in {directory}: run this where `warren edge init` was run, "
                "or give --admin-dir"
            )
        self.directory = directory
        self.signed_edges = read_private(directory / EDGES)
        try:
            (self.network,) = certificates.from_pem(read_private(directory / NETWORK))
            self.edges = verify_edges(self.signed_edges, self.network)
        except (ValueError, DeniedError):
            raise ConfigError(f"{directory / NETWORK} or {directory / EDGES} is damaged: restore a copy") from None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the network certificate in hex."""
        return certificates.fingerprint(self.network).hex()

    def network_key(self) -> Ed25519PrivateKey:
        """The network key itself, for as long as something is signed."""
        key = keys.load(self.directory / NETWORK_KEY)
        if certificates.verify_authority(self.network) != keys.public(key):
            raise ConfigError(f"{self.directory / NETWORK_KEY} does not belong to {NETWORK} beside it")
        return key

    def new_tunnel(self, name: str) -> NewTunnel:
        """Makes the tunnel's CA, and signs that it is this tunnel's. The CA's key is in the token only."""
        return self._tunnel(keys.new_id(), name, 1)

    def rotate(self, known: KnownTunnel, until: int) -> NewTunnel:
        """Makes the tunnel another CA. The present one holds beside it until `until` (Unix time, seconds), unless the
        edge shows one that was replaced before: that ends at once. Raises ConfigError."""
        revision, last = self._verified(known), self._signed().get(known.id, 0)
        former = known.authority if revision >= last else b""
        return self._tunnel(known.id, known.name, max(revision, last) + 1, former, until if former else 0)

    def finish(self, known: KnownTunnel) -> tuple[bytes, int]:
        """The statement that the tunnel's present CA is its only one, and its revision. Raises ConfigError."""
        revision = self._verified(known)
        if revision < self._signed().get(known.id, 0):
            raise ConfigError(
                f"the edge shows a key of tunnel {known.name} that was replaced before (was an older store restored?): "
                "rotate it once more"
            )
        return sign_tunnel(self.network_key(), known.id, known.authority, revision + 1), revision + 1

    def remember(self, tunnel: str, revision: int) -> None:
        """The edge has taken this revision: one that shows an older from now on is not believed."""
        signed = {**self._signed(), tunnel: revision}
        write_private(self.directory / REVISIONS, json.dumps(signed, indent=1).encode(), replace=True)

    def _verified(self, known: KnownTunnel) -> int:
        """The revision of what the edge shows: it may not put a CA of its own in the tunnel's place."""
        try:
            said = verify_tunnel(known.statement, known.authority, self.network)
        except DeniedError as error:
            raise ConfigError(f"what the edge shows of tunnel {known.name} is not signed: {error.detail}") from None
        if said.tunnel != known.id:
            raise ConfigError(f"what the edge shows of tunnel {known.name} is another tunnel's")
        return said.revision

    def _signed(self) -> dict[str, int]:
        path = self.directory / REVISIONS
        if not path.exists():
            return {}
        try:
            return msgspec.json.decode(read_private(path), type=dict[str, int])
        except msgspec.DecodeError:
            raise ConfigError(f"{path} is damaged: restore a copy, or remove it") from None

    def _tunnel(self, tunnel: str, name: str, revision: int, former: bytes = b"", until: int = 0) -> NewTunnel:
        key = keys.generate()
        authority = certificates.make_tunnel_authority(key, tunnel)
        statement = sign_tunnel(self.network_key(), tunnel, authority, revision, former, until)
        token = TunnelToken(
            network=self.network,
            signed_edges=self.signed_edges,
            tunnel=tunnel,
            name=check_name(name, "tunnel"),
            authority=authority,
            private=keys.private_raw(key),
            statement=statement,
        )
        return NewTunnel(tunnel, name, authority, statement, revision, token)

    def new_enrolment_key(self) -> EnrolmentKey:
        """With a new secret, for an hour from now."""
        return EnrolmentKey(self.network, self.signed_edges, new_secret(), int(time.time()) + ENROLMENT_SECONDS)

    def new_edge(self, name: str, host: str, port: int) -> NewEdge:
        """Makes a further edge's credentials, and the list with it. Nothing is written. Raises ConfigError."""
        edge = Edge(keys.new_id(), host, port, check_name(name, "edge"))
        for other in self.edges.edges:
            if name in (other.name, other.id) or (other.host, other.port) == (host, port):
                raise ConfigError(
                    f"there is an edge {other.name or other.id} at {other}: choose another name and place"
                )
        if len(self.edges.edges) >= EDGES_LIMIT:
            raise ConfigError(f"a network has {EDGES_LIMIT} edges at most")
        signed = self._sign_list((*self.edges.edges, edge))
        authority_key = keys.load(self.directory / AUTHORITY_KEY)
        (authority,) = certificates.from_pem(read_private(self.directory / AUTHORITY))
        return NewEdge(edge, signed, _credentials(edge.id, self.network, authority, authority_key, signed))

    def list_without(self, which: str) -> tuple[Edge, bytes]:
        """The edge with this name or id, and the signed list without it. Raises ConfigError."""
        found = next((edge for edge in self.edges.edges if which in (edge.name, edge.id)), None)
        if found is None:
            known = ", ".join(edge.name or edge.id for edge in self.edges.edges)
            raise ConfigError(f"there is no edge {which[:80]!r}: there are {known}")
        left = tuple(edge for edge in self.edges.edges if edge is not found)
        if not left:
            raise ConfigError("a network has one edge at least: add another one first")
        return found, self._sign_list(left)

    def keep_edges(self, signed: bytes) -> None:
        """The new list becomes the one that tokens and enrolment keys carry. Raises DeniedError: another network's."""
        self.edges = verify_edges(signed, self.network)
        self.signed_edges = signed
        write_private(self.directory / EDGES, signed, replace=True)

    def _sign_list(self, edges: tuple[Edge, ...]) -> bytes:
        return sign_edges(self.network_key(), EdgeList(self.edges.revision + 1, edges))


def create(
    admin_dir: Path, state_dir: Path, edge: Edge, make_store: Callable[[Path], None] = lambda path: None
) -> None:
    """Makes a network and its first edge: keys into both directories, then the store, all or nothing.

    Raises ConfigError, and whatever `make_store` (which gets the store's path) raises.
    """
    refuse_existing(admin_dir, state_dir)
    admin_files, state_files = _make(EdgeList(1, (edge,)))
    store = state_dir / state.STORE
    with ExitStack() as undo:
        for directory, contents in ((admin_dir, admin_files), (state_dir, state_files)):
            fresh = not directory.exists()
            private_directory(directory)
            if fresh:
                undo.callback(directory.rmdir)
            for file, data in contents.items():
                write_private(directory / file, data)
                undo.callback((directory / file).unlink)
        for path in (store, store.with_name(f"{store.name}-wal"), store.with_name(f"{store.name}-shm")):
            undo.callback(path.unlink, missing_ok=True)
        make_store(store)
        undo.pop_all()


def refuse_existing(admin_dir: Path, state_dir: Path) -> None:
    """Raises ConfigError if either directory holds something already."""
    if any((admin_dir / file).exists() for file in FILES):
        raise ConfigError(
            f"a network's keys are in {admin_dir} already: give another --admin-dir, or keep that network"
        )
    if any((state_dir / file).exists() for file in (*state.CREDENTIALS, state.STORE)):
        raise ConfigError(f"an edge is in {state_dir} already: give another --state-dir, or keep that edge")


def parse_public(text: str, port: int) -> tuple[str, int]:
    """HOST, HOST:PORT, ADDRESS, [ADDRESS]:PORT as host and port (`port` where none is said). Raises ConfigError."""
    wrong = ConfigError(f"--public {text[:80]!r}: HOST or HOST:PORT is needed, as in edge.example.net:4433")
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:\[\]]+)(?::(\d{1,5}))?|([0-9a-fA-F:.]+)", text)
    if match is None:
        raise wrong
    host = match[1] or match[3] or match[5]
    number = int(match[2] or match[4] or port)
    if not _is_host(host, bracketed=bool(match[1] or match[5])) or not 1 <= number <= 65_535:
        raise wrong
    return host.lower(), number


def check_name(name: str, what: str) -> str:
    """The name of an edge, tunnel or device. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} is no name of a {what}: 1 to 63 letters, digits, '-', '_' and '.'")
    return name


def _is_host(host: str, *, bracketed: bool) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        named = len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
        return named and not labels[-1].isdigit() and not bracketed
    return (address.version == 6) == bracketed and not address.is_unspecified and not address.is_multicast


def _make(edges: EdgeList) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What goes into the administrator's directory, and into the edge's."""
    network_key, authority_key = keys.generate(), keys.generate()
    network = certificates.make_network(network_key)
    authority = certificates.make_edge_authority(network_key, network, keys.public(authority_key))
    signed = sign_edges(network_key, edges)
    admin_files = {
        NETWORK_KEY: keys.private_pem(network_key),
        NETWORK: certificates.pem(network),
        AUTHORITY_KEY: keys.private_pem(authority_key),
        AUTHORITY: certificates.pem(authority),
        EDGES: signed,
    }
    return admin_files, _credentials(edges.edges[0].id, network, authority, authority_key, signed)


def _credentials(
    edge: str, network: bytes, authority: bytes, authority_key: Ed25519PrivateKey, signed: bytes
) -> dict[str, bytes]:
    """What makes an edge this edge: `state.CREDENTIALS`, with new keys."""
    key, grant_key = keys.generate(), keys.generate()
    leaf = certificates.make_edge(authority_key, authority, edge, keys.public(key))
    return {
        state.NETWORK: certificates.pem(network),
        state.EDGES: signed,
        state.CHAIN: certificates.pem(leaf, authority),
        state.KEY: keys.private_pem(key),
        state.GRANT_KEY: keys.private_pem(grant_key),
        state.GRANT_CERTIFICATE: certify_grant_key(authority_key, edge, keys.public(grant_key)),
    }
