"""What decides flows, in memory: built whole from the store, then swapped; never changed, never waits.

A lookup is a dictionary or a longest-prefix match; who holds a snapshot sees one state of the store.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from warren.edge.judge.routing import Address, AddressTable, HostTable
from warren.edge.store.records import Device, Route, Tunnel


@dataclass(frozen=True, slots=True)
class VirtualNetwork:
    """The routes that devices of one virtual network see."""

    name: str
    cidrs: tuple[str, ...] = ()
    """Sorted, as the agent is told to capture them."""
    zones: tuple[str, ...] = ()
    """Sorted; exact names, and wildcards as `*.corp.internal`."""
    addresses: AddressTable[Route] = field(default_factory=AddressTable)
    hosts: HostTable[Route] = field(default_factory=HostTable)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the store. `devices` holds enrolled ones only, by the thumbprint of their key."""

    epoch: int = 0
    revision: int = 0
    devices: Mapping[str, Device] = MappingProxyType({})
    devices_by_id: Mapping[str, Device] = MappingProxyType({})
    """Those that wait for their enrolment too."""
    tunnels: Mapping[str, Tunnel] = MappingProxyType({})
    routes: Mapping[str, Route] = MappingProxyType({})
    networks: Mapping[str, VirtualNetwork] = MappingProxyType({})

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
    epoch: int, revision: int, tunnels: Iterable[Tunnel], routes: Iterable[Route], devices: Iterable[Device]
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
    )


def _networks(routes: Iterable[Route]) -> dict[str, VirtualNetwork]:
    by_network: dict[str, list[Route]] = {}
    for route in routes:
        by_network.setdefault(route.vnet, []).append(route)
    return {name: _network(name, members) for name, members in by_network.items()}


def _network(name: str, routes: list[Route]) -> VirtualNetwork:
    cidrs = [route for route in routes if route.kind == "ip"]
    hosts = [route for route in routes if route.kind == "host"]
    return VirtualNetwork(
        name=name,
        cidrs=tuple(sorted(route.value for route in cidrs)),
        zones=tuple(sorted(route.value for route in hosts)),
        addresses=AddressTable((ipaddress.ip_network(route.value), route) for route in cidrs),
        hosts=HostTable((route.value, route) for route in hosts),
    )
