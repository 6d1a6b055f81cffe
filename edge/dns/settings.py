"""The section `dns` of edge.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from warren.dnsfilter.core.config import CacheConfig, Dnssec, Zone
from warren.dnsfilter.settings import (
    RESOLV_CONF,
    GroupSettings,
    LimitSettings,
    ListSettings,
    LogSettings,
    Settings,
    nameservers,
)
from warren.edge.store.errors import InvalidError
from warren.edge.store.values import hostname
from warren.fabric.core.errors import ConfigError

SEARCH_MAX = 6
"""Search domains: what every C library takes (resolv.conf(5))."""


class DnsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the edge answers devices with."""

    upstreams: tuple[str, ...] = ()
    """Short for groups.default. Neither given: the nameservers in this host's /etc/resolv.conf."""
    groups: dict[str, GroupSettings] = {}
    zones: tuple[Zone, ...] = ()
    lists: tuple[ListSettings, ...] = ()
    search: tuple[str, ...] = ()
    """Domains that devices complete short names with."""
    cache: CacheConfig = CacheConfig()
    limit: LimitSettings = LimitSettings(per_second=200, burst=1000)
    """Of one device."""
    log: Literal["full", "anonymous", "off"] = "full"
    """The query log. Anonymous: neither device nor user."""
    log_max_bytes: int = 64 << 20
    dnssec: Dnssec | Literal["off", "upstream", "libunbound", "auto"] = "off"
    """Who validates answers of upstreams (docs/dns.md)."""
    upstream_ca: str = ""
    refresh_hours: float = 24

    def __post_init__(self) -> None:
        try:
            self.resolver(Path("/")).check()
            for domain in self.search:
                hostname(domain)
        except (ConfigError, InvalidError) as error:
            raise ValueError(str(error)) from None
        if len(self.search) > SEARCH_MAX:
            raise ValueError(f"search: {len(self.search)} domains, {SEARCH_MAX} are what C libraries take")

    def resolver(self, state: Path) -> Settings:
        """In the resolver's own form. `state`: where its lists and its log are kept."""
        log = LogSettings(self.log != "off", self.log == "anonymous", self.log_max_bytes)
        return Settings(
            upstreams=self.upstreams,
            groups=self.groups,
            zones=self.zones,
            lists=self.lists,
            cache=self.cache,
            log=log,
            limit=self.limit,
            dnssec=self.dnssec,
            upstream_ca=self.upstream_ca,
            refresh_hours=self.refresh_hours,
            state=str(state),
        )

    def with_upstreams(self, path: Path = RESOLV_CONF) -> DnsSettings:
        """With this host's own nameservers, where none are given."""
        if self.upstreams or "default" in self.groups:
            return self
        return msgspec.structs.replace(self, upstreams=nameservers(path))
