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
    tls_name: str = ""
    """The name that its certificate has to show: asked over TLS (RFC 7858). Empty: UDP and TCP in the clear."""
    path: str = ""
    """Asked over HTTPS (RFC 8484), there."""

    @property
    def text(self) -> str:
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        if self.path:
            return f"https://{where}{self.path}#{self.tls_name}"
        return f"tls://{where}#{self.tls_name}" if self.tls_name else where


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Upstreams that know the same names."""

    upstreams: tuple[Upstream, ...]
    order: Literal["ordered", "racing"] = "ordered"
    """Ordered: the first that is well, the next when it does not answer. Racing: the two quickest at once."""
    trust_ad: bool = False
    """They validate, and nobody can change what they say on the way: tell clients that data is authentic (AD)."""

    @property
    def can_be_believed(self) -> bool:
        """Whether nobody can change what they say on the way, as far as is known."""
        return self.trust_ad or all(upstream.tls_name for upstream in self.upstreams)


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


class Dnssec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who checks signatures (RFC 4035)."""

    mode: Literal["off", "upstream", "libunbound", "auto"] = "off"
    """`upstream`: resolvers behind TLS or HTTPS do, and their AD bit is believed. `libunbound`: that library does it
    here. `auto`: the library where it is installed, else such upstreams, else nobody."""
    anchors: tuple[str, ...] = ()
    """Files with trust anchors for the library: DS or DNSKEY records; none: those that the system has for the root."""
    insecure: tuple[str, ...] = ()
    """Zones whose signatures are not looked at; private zones always are among them."""


class ResolverConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is asked about what. Without a group "default" only zones and what the host decides are answered."""

    groups: dict[str, Group] = {}
    zones: tuple[Zone, ...] = ()
    cache: CacheConfig = CacheConfig()
    dnssec: Dnssec = Dnssec()

    def __post_init__(self) -> None:
        for name, group in self.groups.items():
            if not group.upstreams:
                raise ConfigError(f"dns.groups.{name}: no upstreams; name at least one address")
        for zone in self.zones:
            if zone.group and zone.group not in self.groups:
                raise ConfigError(
                    f"dns.zones: {zone.name} goes to the group {zone.group!r}, which is not in dns.groups"
                )
        for name in (*(zone.name for zone in self.zones), *self.dnssec.insecure):
            try:
                dnswire.name_wire(name)
            except ValueError as error:
                raise ConfigError(f"dns.zones: {error}") from None
        default = self.groups.get(DEFAULT_GROUP)
        if self.dnssec.mode == "upstream" and default is not None and not default.can_be_believed:
            raise ConfigError(
                "dnssec: upstream needs upstreams that are asked over tls:// or https://, or nobody knows who says so; "
                "name such ones, or use libunbound"
            )


def _has_port(text: str) -> bool:
    return "]:" in text or text.count(":") == 1


def parse_upstream(text: str) -> Upstream:
    """`ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`; `tls://` in front and `#NAME` behind for DNS over TLS, `https://`
    in front and `/PATH#NAME` behind for DNS over HTTPS."""
    scheme, found, rest = text.partition("://")
    if found and scheme in ("tls", "https"):
        rest, _, name = rest.partition("#")
        rest, slash, path = rest.partition("/")
        usual = 853 if scheme == "tls" else 443
        bare = parse_upstream(rest if _has_port(rest) else f"[{rest.strip('[]')}]:{usual}")
        if slash and scheme == "tls":
            raise ConfigError(f"{text!r}: DNS over TLS has no path; leave {slash}{path} away, or write https://")
        try:
            name = dnswire.name_text(dnswire.name_wire(name)) if name else bare.host
        except ValueError as error:
            raise ConfigError(f"{text!r}: {error}") from None
        return Upstream(bare.host, bare.port, name, "" if scheme == "tls" else f"/{path or 'dns-query'}")
    host, port = text, "53"
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or ("53" if closed else "")
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
