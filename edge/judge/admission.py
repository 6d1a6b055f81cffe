"""Who is this node? The proof that devices and connectors give, held against the network key and the store. Pure.

Attachment and session ask the same question, each under its own label (fabric/identity/proof.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warren.edge.store.records import Device, Tunnel
from warren.edge.store.snapshot import Snapshot
from warren.fabric.core.errors import DeniedError, WireError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates, keys, proof, statements


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """An enrolled device."""

    device: Device
    key: bytes


@dataclass(frozen=True, slots=True)
class ConnectorNode:
    """A connector process of a tunnel. `key`: of its leaf."""

    tunnel: Tunnel
    key: bytes
    authority: bytes
    """SHA-256 of the tunnel CA that its leaf is under."""
    revision: int
    """Of the network key's statement that it showed."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a node shows: the fields that `Attach` and `Enter` have in common."""

    role: str
    key: bytes
    signature: bytes
    certificates: tuple[bytes, ...]
    statement: bytes


class Doorkeeper:
    """Knows the network, this edge's leaf and the store's present state."""

    def __init__(self, network: bytes, leaf: bytes, snapshot: Callable[[], Snapshot], now: Callable[[], float]) -> None:
        """`network`, `leaf`: DER. `now`: Unix time in seconds."""
        self.leaf = leaf
        self._now = now
        self._network = network
        self._snapshot = snapshot

    def identify(self, label: bytes, challenge: bytes, shown: Shown) -> DeviceNode | ConnectorNode:
        """Raises DeniedError: BAD_PROOF, DEVICE_UNKNOWN, WRONG_TUNNEL."""
        try:
            proof.verify(shown.key, shown.signature, label, challenge, self.leaf)
        except WireError:
            raise DeniedError(Reason.BAD_PROOF) from None
        if shown.role == "connector":
            return self._connector(shown)
        device = self._snapshot().device(keys.thumbprint(shown.key))
        if device is None:
            raise DeniedError(Reason.DEVICE_UNKNOWN)
        return DeviceNode(device, shown.key)

    def _connector(self, shown: Shown) -> ConnectorNode:
        if len(shown.certificates) != 2:
            raise DeniedError(Reason.BAD_PROOF, "a connector shows its leaf and its tunnel's CA")
        leaf, authority = shown.certificates
        said = statements.verify_tunnel(shown.statement, authority, self._network)
        if certificates.verify_connector(leaf, authority, said.tunnel) != shown.key:
            raise DeniedError(Reason.BAD_PROOF, "the key is not the leaf's")
        tunnel = self._snapshot().tunnel(said.tunnel)
        if tunnel is None:
            raise DeniedError(Reason.WRONG_TUNNEL, "the tunnel was deleted")
        if not tunnel.admits(said.authority, said.revision, self._now()):
            raise DeniedError(Reason.WRONG_TUNNEL, "its token was replaced by a newer one")
        return ConnectorNode(tunnel, shown.key, said.authority, said.revision)
