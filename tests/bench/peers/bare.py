"""The bare path: no tunnel, the routers forward. What everything else is measured against."""

from __future__ import annotations

from tests.bench.peers.peer import SITE, Peer


class Bare(Peer):
    """laptop → home → internet → office → origin, all in the kernel."""

    name = "bare path"
    path = "routed, no tunnel"

    @property
    def version(self) -> str:
        return "the kernel"

    def up(self) -> None:
        self.lab["internet"].run(["ip", "route", "add", SITE, "via", "198.51.100.2"])
        self.lab["office"].run(["nft", "insert rule inet firewall forward iifname wan0 oifname lan0 accept"])
