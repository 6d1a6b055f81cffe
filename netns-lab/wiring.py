"""Cards, cables, addresses, routes and firewalls between hosts whose namespaces exist.

Every card is made in the namespace that it belongs to; the machine's own network is never touched.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_interface

from warren.lab.entering import enter_network
from warren.lab.topology import HostSpec, Interface, Network, Route, Topology

Pids = Mapping[str, int]  # host → its first process


def wire(topology: Topology, pids: Pids) -> None:
    """Raises subprocess.CalledProcessError with what `ip` or `nft` said."""
    for network in topology.networks:
        if network.switch is not None:
            trunk = switch_card(topology, network).name
            batch(pids[network.switch], [f"link add {trunk} type bridge forward_delay 0 mcast_snooping 0"])
    cables = [line for network in topology.networks for line in _cables(topology, network, pids)]
    batch(next(iter(pids.values())), cables)
    for host in topology.hosts:
        batch(pids[host.name], _set_up(topology, host))
        if host.firewall:
            run_with([*enter_network(pids[host.name]), "nft", "-f", "-"], host.firewall)


def _cables(topology: Topology, network: Network, pids: Pids) -> list[str]:
    members = topology.members(network.name)
    if network.switch is None:
        (host, card), (peer, peer_card) = members
        return [_cable(network, card.name, pids[host.name], peer_card.name, pids[peer.name])]
    switch = pids[network.switch]
    plugged = [(card.name, pids[host.name]) for host, card in members if host.name != network.switch]
    ports = ports_of(topology, network)
    return [_cable(network, name, pid, port, switch) for (name, pid), port in zip(plugged, ports, strict=True)]


def switch_card(topology: Topology, network: Network) -> Interface:
    return next(card for host, card in topology.members(network.name) if host.name == network.switch)


def _cable(network: Network, name: str, pid: int, peer: str, peer_pid: int) -> str:
    limits = f"mtu {network.mtu}"
    if network.gso_max_segs is not None:
        limits += f" gso_max_segs {network.gso_max_segs}"
    return f"link add {name} netns {pid} {limits} type veth peer name {peer} netns {peer_pid} {limits}"


def _set_up(topology: Topology, host: HostSpec) -> list[str]:
    lines = ["link set lo up", *(f"addr add {address} dev lo" for address in host.loopback)]
    for network in topology.networks:
        if network.switch == host.name:
            lines += _plug_ports(topology, network)
    for card in host.interfaces:
        lines += [
            f"link set {card.name} addrgenmode none",  # no IPv6 that nobody asked for
            *(line for address in card.addresses for line in _address(address, card.name)),
            f"link set {card.name} up",
        ]
    congestion = f" congctl {host.congestion}" if host.congestion else ""
    lines += [_link_route(card, each) + congestion for card in host.interfaces for each in card.addresses]
    return lines + [_route(route) + (congestion if route.kind == "unicast" else "") for route in host.routes]


def _plug_ports(topology: Topology, network: Network) -> list[str]:
    trunk = switch_card(topology, network).name
    return [line for port in ports_of(topology, network) for line in _plug(port, trunk)]


def ports_of(topology: Topology, network: Network) -> list[str]:
    trunk = switch_card(topology, network).name
    return [f"{trunk}p{number}" for number in range(len(topology.members(network.name)) - 1)]


def _plug(port: str, trunk: str) -> list[str]:
    return [f"link set {port} addrgenmode none", f"link set {port} master {trunk}", f"link set {port} up"]


def _address(address: str, card: str) -> list[str]:
    """With IPv6 a link-local one too, by which routers ask for their neighbours: fe80:: and the same last 64 bits."""
    if ":" not in address:
        return [f"addr add {address} dev {card} noprefixroute"]
    near = IPv6Address(0xFE80 << 112 | int(ip_interface(address).ip) & (1 << 64) - 1)
    return [f"addr add {address} dev {card} noprefixroute nodad", f"addr replace {near}/64 dev {card} nodad"]


def _link_route(card: Interface, address: str) -> str:
    interface = ip_interface(address)
    if interface.version == 6:
        return f"route add {interface.network} dev {card.name}"
    return f"route add {interface.network} dev {card.name} scope link src {interface.ip}"


def _route(route: Route) -> str:
    return f"route add {route.to} via {route.via}" if route.via else f"route add {route.kind} {route.to}"


def batch(pid: int, lines: list[str]) -> None:
    run_with([*enter_network(pid), "ip", "-batch", "-"], "\n".join(lines) + "\n")


def run_with(argv: list[str], text: str) -> None:
    try:
        subprocess.run(argv, input=text, text=True, capture_output=True, check=True, timeout=30)
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stderr.strip()}\n{text}")
        raise
