"""The file that `warren dns run` reads: one YAML document, checked as a whole before anything starts."""

from __future__ import annotations

import io
import ipaddress
from pathlib import Path
from typing import Any, Literal

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from warren.dnsfilter.core.config import CacheConfig, Dnssec, Group, ResolverConfig, Zone, parse_upstream
from warren.dnsfilter.core.expectations import Expectation
from warren.dnsfilter.core.lists import Kind, Syntax
from warren.dnsfilter.core.policy import Policy
from warren.fabric.core.errors import ConfigError
from warren.fabric.core.selectors import Networks
from warren.fabric.daemon.settings import ODD_SCALARS, Endpoint

RESOLV_CONF = Path("/etc/resolv.conf")
SERVERS = 3
"""What the C library reads of it (MAXNS in resolv.h)."""
SETTINGS_MAX_BYTES = 4 << 20
"""Of the file: ten thousand rules and then some."""


class ListSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list, and where it comes from."""

    name: str
    source: str
    """An https:// or http:// address, or a path."""
    kind: Kind = "block"
    categories: tuple[str, ...] = ()
    syntax: Syntax = "auto"


class GroupSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Upstreams that know the same names."""

    upstreams: tuple[str, ...]
    racing: bool = False
    trust_ad: bool = False


class ClientSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who stands behind an address or a network, where no tunnel says it."""

    networks: tuple[str, ...]
    device: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query log."""

    enabled: bool = False
    anonymise: bool = False
    """Neither device nor user, and addresses cut to /24 and /48."""
    max_bytes: int = 64 << 20
    """On disk, the log before included."""


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """DNS over TLS (RFC 7858), or over HTTPS (RFC 8484)."""

    listen: tuple[str, ...]
    certificate: str
    key: str


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Queries that one client may ask."""

    per_second: int = 1000
    burst: int = 2000


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it."""

    listen: tuple[str, ...] = ("127.0.0.1:53",)
    upstreams: tuple[str, ...] = ()
    """Short for a group "default"."""
    groups: dict[str, GroupSettings] = {}
    zones: tuple[Zone, ...] = ()
    lists: tuple[ListSettings, ...] = ()
    policy: Policy | None = None
    """Without one, everything on a block list is blocked for everybody."""
    expectations: tuple[Expectation, ...] = ()
    """What the policy should come to; `warren dns run` does not start when one does not hold."""
    clients: tuple[ClientSettings, ...] = ()
    cache: CacheConfig = CacheConfig()
    log: LogSettings = LogSettings()
    tls: TlsSettings | None = None
    https: TlsSettings | None = None
    dnssec: Dnssec | Literal["off", "upstream", "libunbound", "auto"] = "off"
    """The mode alone, or all of it."""
    metrics: str = ""
    """ADDRESS:PORT where /ready and /metrics are served; empty: nowhere."""
    limit: LimitSettings = LimitSettings()
    upstream_ca: str = ""
    """PEM file of authorities for upstreams over TLS, instead of the system's."""
    refresh_hours: float = 24
    state: str = "/var/lib/warren/dns"
    """Directory for lists as they were last good, and for the query log."""

    def resolver_config(self) -> ResolverConfig:
        groups = {
            name: Group(
                tuple(map(parse_upstream, group.upstreams)), "racing" if group.racing else "ordered", group.trust_ad
            )
            for name, group in self.groups.items()
        }
        if self.upstreams:
            if "default" in groups:
                raise ConfigError("`upstreams` and `groups.default` say the same thing; keep one of them")
            groups["default"] = Group(tuple(map(parse_upstream, self.upstreams)))
        dnssec = self.dnssec if isinstance(self.dnssec, Dnssec) else Dnssec(self.dnssec)
        return ResolverConfig(groups, self.zones, self.cache, dnssec)

    def check(self) -> None:
        """What the types cannot say."""
        names = [entry.name for entry in self.lists]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"lists: {name!r} is there twice; give each list a name of its own")
            if not name or "/" in name or name.startswith("."):
                raise ConfigError(f"lists: {name!r} is no name; use letters, digits and dashes")
        for client in self.clients:
            Networks(client.networks)
        if self.refresh_hours <= 0:
            raise ConfigError("refresh_hours is above 0")
        if self.metrics:
            try:
                Endpoint.parse(self.metrics)
            except ValueError as error:
                raise ConfigError(f"metrics: {error}") from None
        self.resolver_config()


def load(path: Path) -> Settings:
    """Read and check the file. ConfigError: one line, with the path of the key."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a file, or leave --config away") from None
    return parse(text, str(path))


def parse(text: bytes, where: str) -> Settings:
    """The same for what the file holds."""
    if len(text) > SETTINGS_MAX_BYTES:
        raise ConfigError(f"{where}: longer than {SETTINGS_MAX_BYTES} bytes")
    try:
        document: Any = YAML(typ="safe", pure=True).load(io.BytesIO(text))
        settings = msgspec.convert(document or {}, Settings, strict=True)
        settings.check()
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{where}{at}: {getattr(error, 'problem', None) or 'no YAML'}") from None
    except (msgspec.ValidationError, ConfigError, *ODD_SCALARS) as error:
        raise ConfigError(f"{where}: {error}") from None
    return settings


def nameservers(path: Path) -> tuple[str, ...]:
    """The addresses in a resolv.conf. Those with a zone (fe80::1%eth0) are left out. Total."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_address(words[1]):
            found.append(words[1])
    return tuple(found[:SERVERS])


def _is_address(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False
