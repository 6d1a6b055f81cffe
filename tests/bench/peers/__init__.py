"""What is measured in the same lab: Warren on each engine, the bare path, and other ways into a private network.

A module for each, one class in it: see `peer.py`. A lab serves one peer; its end is the peer's end, too.
"""

from __future__ import annotations

from tests.bench.peers.bare import Bare
from tests.bench.peers.nebula import NebulaDirect, NebulaRelay
from tests.bench.peers.openvpn import OpenVpn
from tests.bench.peers.peer import Missing, Peer
from tests.bench.peers.sshuttle import Sshuttle
from tests.bench.peers.warren import WarrenAioquic, WarrenNative
from tests.bench.peers.wireguard import WireguardGo

PEERS: tuple[type[Peer], ...] = (
    Bare,
    WarrenNative,
    WarrenAioquic,
    WireguardGo,
    NebulaRelay,
    NebulaDirect,
    OpenVpn,
    Sshuttle,
)
"""In the order of the table."""

__all__ = ["PEERS", "Bare", "Missing", "Peer", "WarrenAioquic", "WarrenNative", "WireguardGo"]
