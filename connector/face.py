"""What a connector shows under one token: its leaf under the tunnel's CA. Another token, another face; the key stays.

The process makes one key when it starts. After `warren tunnel rotate` it makes another leaf for it under the new CA, so
that switches know it for the same node: slots and circuits stay, and with them every flow.
"""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren import __version__
from warren.connector.config import HOLD
from warren.fabric.aio.owner import Identity
from warren.fabric.core.engine import Limits, ServerConfig
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity import certificates, keys, proof
from warren.fabric.identity.tokens import TunnelToken

ALPN = "warren-peer/1"
PEER_LIMITS = Limits(streams=1024, connection_window=256 << 20)
ALIVE = 20.0
"""Seconds after which an idle agent is asked whether it is there; a third of a shorter hold time."""


@dataclass(frozen=True, slots=True)
class Face:
    """Towards edges (`identity`), and towards agents (`leaf`, DER; `servers`, by the index of the circuit socket: TCP
    flows, UDP and ICMP flows)."""

    token: TunnelToken
    leaf: bytes
    servers: tuple[ServerConfig, ServerConfig]
    identity: Identity


def make_face(key: Ed25519PrivateKey, token: TunnelToken, hold: float = HOLD) -> Face:
    """`key`: the process's own. `hold`: seconds for which flows of a silent agent are kept."""
    limits = replace(PEER_LIMITS, idle_timeout=hold, keep_alive=min(ALIVE, hold / 3))
    raw = keys.public(key)
    leaf = token.make_leaf(raw)
    shown = certificates.pem(leaf), keys.private_pem(key)
    streams, datagrams = (
        ServerConfig((ALPN,), *shown, replace(limits, datagrams=datagrams)) for datagrams in (False, True)
    )

    def sign(label: bytes, challenge: bytes, edge_leaf: bytes) -> bytes:
        return proof.sign(key, label, challenge, edge_leaf)

    identity = Identity(
        "connector",
        raw,
        sign,
        token.network,
        (leaf, token.authority),
        token.statement,
        socket.gethostname(),
        f"warren {__version__}",
        hashlib.sha256(b"boot" + raw).digest()[:16],  # of the process, whatever token it shows
    )
    return Face(token, leaf, (streams, datagrams), identity)


def check_successor(token: TunnelToken, present: TunnelToken) -> None:
    """Raises ConfigError unless it is a newer token, or the same one, of the same tunnel."""
    if (token.network, token.tunnel) != (present.network, present.tunnel):
        raise ConfigError(f"it is of another tunnel ({token.name}): a connector keeps its tunnel, start another one")
    if token.verify().revision < present.verify().revision:
        raise ConfigError("it is older than the one in use")
