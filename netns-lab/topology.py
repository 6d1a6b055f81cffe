"""What a lab is made of, as data: hosts, the networks that join them, and how a topology is varied for one test."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Literal

# What systemd sets on a Debian host, and nothing of IPv6 that would start by itself.
DEBIAN_SYSCTLS: Mapping[str, str] = {
    "net.ipv4.conf.default.rp_filter": "2",
    "net.ipv4.conf.default.promote_secondaries": "1",
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.default.autoconf": "0",
}
ServiceName = Literal["http", "ssh", "iperf3", "postgres", "echo"]
HOST_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
INTERFACE_NAME = re.compile(r"[a-z][a-z0-9]{0,10}")


@dataclass(frozen=True, slots=True)
class Interface:
    """One network card: which network it is plugged into, and its address with prefix (`10.10.0.2/24`).

    `more`: further addresses, also of the other family.
    """

    network: str
    address: str
    name: str = "eth0"
    more: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.more)


@dataclass(frozen=True, slots=True)
class Network:
    """A cable between two hosts or, with `switch`, a bridge that stands in that host and takes any number of them.

    `gso_max_segs` bounds the segments of one offloaded batch on every card of the network (None: the kernel's own).
    """

    name: str
    mtu: int = 1500
    gso_max_segs: int | None = None
    switch: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route of one host: `via` a next hop, or a `kind` that answers (`unreachable`, `prohibit`) or swallows."""

    to: str
    via: str | None = None
    kind: Literal["unicast", "unreachable", "prohibit", "blackhole"] = "unicast"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One host.

    `loopback`: further addresses, on `lo`. `firewall`: an nftables ruleset. `nameserver`: what /etc/resolv.conf says.
    `congestion`: TCP congestion control, set on every route (a kernel lets other namespaces than its first choose the
    default among few). `sysctls` come on top of `DEBIAN_SYSCTLS`. `services`: what `start_services` starts there, and
    a name server for `names` and the records of `zone` (as in a zone file), on `names_on` (None: the first address).
    """

    name: str
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    loopback: tuple[str, ...] = ()
    forwards: bool = False
    firewall: str = ""
    nameserver: str | None = None
    search: str | None = None
    congestion: str | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    services: tuple[ServiceName, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    zone: str = ""
    names_on: str | None = None

    @property
    def address(self) -> str:
        """The first address, without its prefix."""
        return str(ip_interface(self.interfaces[0].address).ip)

    def all_sysctls(self) -> dict[str, str]:
        forwarding = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"} if self.forwards else {}
        return {**DEBIAN_SYSCTLS, **forwarding, **self.sysctls}


@dataclass(frozen=True, slots=True)
class Topology:
    """Hosts and networks that fit together; raises ValueError, naming the host, where they don't."""

    name: str
    hosts: tuple[HostSpec, ...]
    networks: tuple[Network, ...]

    def __post_init__(self) -> None:
        _check(self)

    def host(self, name: str) -> HostSpec:
        return {host.name: host for host in self.hosts}[name]

    def network(self, name: str) -> Network:
        return {network.name: network for network in self.networks}[name]

    def members(self, network: str) -> list[tuple[HostSpec, Interface]]:
        """The hosts plugged into a network, each with the card that is."""
        return [(host, card) for host in self.hosts for card in host.interfaces if card.network == network]

    def with_host(self, name: str, **changes: Any) -> Topology:
        """The same topology with fields of one host changed; KeyError if there is no such host."""
        self.host(name)
        hosts = tuple(replace(host, **changes) if host.name == name else host for host in self.hosts)
        return replace(self, hosts=hosts)

    def with_network(self, name: str, **changes: Any) -> Topology:
        """The same topology with fields of one network changed; KeyError if there is no such network."""
        self.network(name)
        networks = tuple(replace(each, **changes) if each.name == name else each for each in self.networks)
        return replace(self, networks=networks)


def _check(topology: Topology) -> None:
    names = [host.name for host in topology.hosts]
    networks = {network.name for network in topology.networks}
    if len(set(names)) != len(names):
        raise ValueError(f"topology {topology.name}: two hosts of one name")
    for host in topology.hosts:
        _check_host(host, networks)
    for network in topology.networks:
        members = [host.name for host, _ in topology.members(network.name)]
        if network.switch is None and len(members) != 2:
            raise ValueError(f"network {network.name}: joins {len(members)} hosts; a cable joins 2, else name a switch")
        if network.switch is not None and network.switch not in members:
            raise ValueError(f"network {network.name}: its switch {network.switch} is not plugged into it")


def _check_host(host: HostSpec, networks: set[str]) -> None:
    if not HOST_NAME.fullmatch(host.name):
        raise ValueError(f"host {host.name!r}: a name is lower-case letters, digits and hyphens")
    for card in host.interfaces:
        if card.network not in networks:
            raise ValueError(f"host {host.name}: unknown network {card.network!r}")
        if not INTERFACE_NAME.fullmatch(card.name):
            raise ValueError(f"host {host.name}: interface name {card.name!r} is not letters and digits, 11 at most")
        for address in card.addresses:
            if not _is(ip_interface, address):
                raise ValueError(f"host {host.name}: {card.name}: {address!r} is not an address with its prefix")
    for route in host.routes:
        if route.to != "default" and not _is(ip_network, route.to):
            raise ValueError(f"host {host.name}: {route.to!r} is neither a network nor `default`")
        if (route.via is None) == (route.kind == "unicast"):
            raise ValueError(f"host {host.name}: route to {route.to} needs either a next hop or a kind")
        if route.via is not None and not _is(ip_address, route.via):
            raise ValueError(f"host {host.name}: route to {route.to}: {route.via!r} is not an address")


def _is(kind: Callable[[str], object], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
