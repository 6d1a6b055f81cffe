"""What decides flows, in memory: made from the store, then swapped; never changed, never waits.

A lookup is a dictionary or a longest-prefix match; who holds a snapshot sees one state of the store. `build` makes one
from all rows: 0.2 s for a full store, in which the edge would switch no packet; so a change that knows what it touched
makes the next one by `advance`, which copies dictionaries and reads nothing else.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from warren.dnsfilter.policies import Revision
from warren.edge.judge.routing import WILDCARD, Address, AddressTable, HostTable, Network
from warren.edge.store.records import Device, Route, Tunnel

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class VirtualNetwork:
    """The routes that devices of one virtual network see."""

    name: str
    cidrs: tuple[str, ...] = ()
    """Sorted, as the agent is told to capture them."""
    zones: tuple[str, ...] = ()
    """Sorted; exact names, and wildcards as `*.corp.internal`. A resolver route's zone is there as both."""
    addresses: AddressTable[Route] = field(default_factory=AddressTable)
    hosts: HostTable[Route] = field(default_factory=HostTable)
    names: HostTable[Route] = field(default_factory=HostTable)
    """Hostname routes and resolver routes together: who answers for a name. Of the same name the hostname route."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the store. `devices` holds enrolled ones only, by the thumbprint of their key."""

    epoch: int
    revision: int
    devices: Mapping[str, Device]
    devices_by_id: Mapping[str, Device]
    """Those that wait for their enrolment too."""
    tunnels: Mapping[str, Tunnel]
    routes: Mapping[str, Route]
    networks: Mapping[str, VirtualNetwork]
    edges: bytes = b""
    """The network's signed list of edges; empty until an edge has put it in."""
    policy: Revision | None = None
    """The DNS policy in use; None until one was applied."""

    def device(self, thumbprint: str) -> Device | None:
        """The enrolled device with this key."""
        return self.devices.get(thumbprint)

    def tunnel(self, id_: str) -> Tunnel | None:
        """The tunnel with this id."""
        return self.tunnels.get(id_)

    def network(self, name: str) -> VirtualNetwork:
        """The virtual network of that name; one without routes if nothing mentions it."""
        return self.networks.get(name) or VirtualNetwork(name)

    def address_route(self, vnet: str, address: Address) -> Route | None:
        """The CIDR route with the longest prefix that contains the address."""
        return self.network(vnet).addresses.find(address)

    def host_route(self, vnet: str, host: str) -> Route | None:
        """The hostname route for a name in the form of `values.hostname`."""
        return self.network(vnet).hosts.find(host)


def build(
    epoch: int,
    revision: int,
    tunnels: Iterable[Tunnel],
    routes: Iterable[Route],
    devices: Iterable[Device],
    edges: bytes = b"",
    policy: Revision | None = None,
) -> Snapshot:
    """The snapshot of these rows."""
    by_id = {device.id: device for device in devices}
    all_routes = {route.id: route for route in routes}
    return Snapshot(
        epoch=epoch,
        revision=revision,
        devices=MappingProxyType({device.thumbprint: device for device in by_id.values() if device.thumbprint}),
        devices_by_id=MappingProxyType(by_id),
        tunnels=MappingProxyType({tunnel.id: tunnel for tunnel in tunnels}),
        routes=MappingProxyType(all_routes),
        networks=MappingProxyType(_networks(all_routes.values())),
        edges=edges,
        policy=policy,
    )


def advance(
    old: Snapshot,
    revision: int,
    changed: Iterable[Tunnel | Route | Device],
    deleted: Iterable[str],
    policy: Revision | None = None,
) -> Snapshot:
    """The snapshot after a change: what `build` would make of all rows."""
    new, gone = {record.id: record for record in changed}, frozenset(deleted)
    routes = _patched(old.routes, {id_: record for id_, record in new.items() if isinstance(record, Route)}, gone)
    devices = {id_: record for id_, record in new.items() if isinstance(record, Device)}
    return Snapshot(
        epoch=old.epoch,
        revision=revision,
        devices=_patched(
            old.devices,
            {device.thumbprint: device for device in devices.values() if device.thumbprint},
            {known.thumbprint for id_ in gone | devices.keys() if (known := old.devices_by_id.get(id_))},
        ),
        devices_by_id=_patched(old.devices_by_id, devices, gone),
        tunnels=_patched(old.tunnels, {id_: one for id_, one in new.items() if isinstance(one, Tunnel)}, gone),
        routes=routes,
        networks=_patched_networks(old, routes, gone | new.keys()),
        edges=old.edges,
        policy=policy or old.policy,
    )


def _patched(old: Mapping[str, R], new: Mapping[str, R], gone: Iterable[str]) -> Mapping[str, R]:
    """A copy with some taken out and some put in; the old one itself if that changes nothing."""
    leaving = [key for key in gone if key in old]
    if not new and not leaving:
        return old
    table = dict(old)
    for key in leaving:
        del table[key]
    table.update(new)
    return MappingProxyType(table)


def _patched_networks(
    old: Snapshot, routes: Mapping[str, Route], touched: Iterable[str]
) -> Mapping[str, VirtualNetwork]:
    ids = [id_ for id_ in touched if id_ in old.routes or id_ in routes]
    names = {table[id_].vnet for table in (old.routes, routes) for id_ in ids if id_ in table}
    made = _networks(route for route in routes.values() if route.vnet in names)
    return _patched(old.networks, made, names)


def _networks(routes: Iterable[Route]) -> dict[str, VirtualNetwork]:
    by_network: dict[str, list[Route]] = {}
    for route in routes:
        by_network.setdefault(route.vnet, []).append(route)
    return {name: _network(name, members) for name, members in by_network.items()}


def _network(name: str, routes: list[Route]) -> VirtualNetwork:
    cidrs = [route for route in routes if route.kind == "ip"]
    hosts = [(route.value, route) for route in routes if route.kind == "host"]
    zones = [
        (name, route)
        for route in routes
        if route.kind == "resolver"
        for name in (route.value, f"{WILDCARD}{route.value}")
    ]
    return VirtualNetwork(
        name=name,
        cidrs=tuple(sorted(route.value for route in cidrs)),
        zones=tuple(sorted({name for name, _ in (*hosts, *zones)})),
        addresses=AddressTable((_parsed(route.value), route) for route in cidrs),
        hosts=HostTable(hosts),
        names=HostTable([*zones, *hosts]),
    )


@functools.lru_cache(maxsize=8192)
def _parsed(cidr: str) -> Network:
    """Twice as many as there may be routes: parsing is most of what a table costs."""
    return ipaddress.ip_network(cidr)
