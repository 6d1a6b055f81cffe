"""The resolver's configuration: typed, frozen, checked once."""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

from warren.fabric.core import dnswire
from warren.fabric.core.errors import ConfigError

DEFAULT_GROUP = "default"


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A resolver that is asked. `host` is an address."""

    host: str
    port: int = 53

    @property
    def text(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Upstreams that know the same names."""

    upstreams: tuple[Upstream, ...]
    order: Literal["ordered", "racing"] = "ordered"
    """Ordered: the first that is well, the next when it does not answer. Racing: the two quickest at once."""


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A zone of its own: its names go to `group` only; without one, nobody is asked and there is no such name."""

    name: str
    group: str = ""


class CacheConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of the cache. Times in seconds."""

    max_bytes: int = 16 << 20
    max_ttl: int = 86_400
    max_negative_ttl: int = 900
    """RFC 2308, section 5, suggests one to three hours at most; a new name should not be missed for that long."""
    stale_for: int = 86_400
    """How long an answer may be served past its end when upstreams are silent (RFC 8767, section 5); 0: never."""


class ResolverConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is asked about what. Without a group "default" only zones and what the host decides are answered."""

    groups: dict[str, Group] = {}
    zones: tuple[Zone, ...] = ()
    cache: CacheConfig = CacheConfig()

    def __post_init__(self) -> None:
        for name, group in self.groups.items():
            if not group.upstreams:
                raise ConfigError(f"dns.groups.{name}: no upstreams; name at least one address")
        for zone in self.zones:
            if zone.group and zone.group not in self.groups:
                raise ConfigError(
                    f"dns.zones: {zone.name} goes to the group {zone.group!r}, which is not in dns.groups"
                )
            try:
                dnswire.name_wire(zone.name)
            except ValueError as error:
                raise ConfigError(f"dns.zones: {error}") from None


def parse_upstream(text: str) -> Upstream:
    """`ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        raise ConfigError(f"{text!r} is no upstream; give an address, as in 192.0.2.53 or [2001:db8::53]:53") from None
    if not 0 < number < 65536:
        raise ConfigError(f"{text!r}: a port is between 1 and 65535")
    return Upstream(str(address), number)
