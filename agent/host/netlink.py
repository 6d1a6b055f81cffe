"""Addresses, routes and rules by netlink: reading them, changing them, undoing a change. Blocking: for threads.

(pyroute2's synchronous face raises inside a running event loop; `routes` calls this by `asyncio.to_thread`, the
guardian calls it directly.) Both families; each function opens a socket of its own, 2 ms.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2 import IPRoute, NetlinkError

from warren.agent.host.journal import Undo
from warren.agent.host.undo import ADDRESS, ROUTE, RULE

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_NOT_ROUTED = (IPv6Network("fe80::/10"), IPv6Network("ff00::/8"))
_MAIN_TABLE = 254
_SCOPE_LINK = 253
_TYPE_UNICAST = 1
_NO_DAD = 2  # IFA_F_NODAD
_INVERTED = 2  # FIB_RULE_INVERT: "not"
_NOT_THERE = {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}
_THERE_ALREADY = {errno.EEXIST}


class LocalNetwork(NamedTuple):
    """A network that the host is on: one of its interfaces reaches it without a gateway."""

    network: Network
    interface: str


def local_networks(own_interface: str) -> list[LocalNetwork]:
    """Networks directly behind the host's interfaces, other than our own TUN."""
    with IPRoute() as netlink:
        names = _names(netlink)
        found = {
            LocalNetwork(_destination(route), names.get(route.get_attr("RTA_OIF"), ""))
            for family in _FAMILIES.values()
            for route in netlink.get_routes(family=family, table=_MAIN_TABLE)
            if route["dst_len"] and _is_direct(route)
        }
    kept = (one for one in found if one.interface != own_interface and one.network not in _NOT_ROUTED)
    return sorted(kept, key=lambda one: (in_order(one.network), one.interface))


def has_ipv6(interface: str) -> bool:
    """Whether the kernel takes IPv6 on an interface (no module, ipv6.disable=1 and disable_ipv6=1 are alike here)."""
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def in_order(network: Network) -> tuple[int, int, int]:
    """To sort networks of both families."""
    return network.version, int(network.network_address), network.prefixlen


def _is_direct(route: Any) -> bool:
    """Without a gateway. (The scope says so for IPv4 only.)"""
    if route["type"] != _TYPE_UNICAST:
        return False
    if route["family"] == socket.AF_INET:
        return bool(route["scope"] == _SCOPE_LINK)
    return route.get_attr("RTA_GATEWAY") is None and route.get_attr("RTA_MULTIPATH") is None


def taken_networks(own_interface: str) -> list[Network]:
    """Everything that any address or route (of any table) of the host occupies, but for defaults and our own TUN."""
    with IPRoute() as netlink:
        names = _names(netlink)
        taken = set()
        for family in _FAMILIES.values():
            for address in netlink.get_addr(family=family):
                if names.get(address["index"]) != own_interface:
                    taken.add(ip_network((address.get_attr("IFA_ADDRESS"), address["prefixlen"]), strict=False))
            for route in netlink.get_routes(family=family):
                if route["dst_len"] and names.get(route.get_attr("RTA_OIF")) != own_interface:
                    taken.add(_destination(route))
    return sorted(taken, key=in_order)


def address_undo(interface: str, address: Address) -> Undo:
    """The undo of `add`: one address (/32 or /128) on an interface. (It goes with the interface too.)"""
    return {"kind": ADDRESS, "interface": interface, "address": str(address)}


def route_undo(table: int, network: Network, interface: str | None, source: Address | None = None) -> Undo:
    """The undo of `add`: a route in a table of ours; without interface it says "look further, in the other tables"."""
    source_text = str(source) if source else None
    return {"kind": ROUTE, "table": table, "network": str(network), "interface": interface, "source": source_text}


def rule_undo(table: int, priority: int, mark: int, version: int = 4) -> Undo:
    """The undo of `add`: the rule "what does not carry this mark looks into our table"; one for each IP version."""
    return {"kind": RULE, "table": table, "priority": priority, "mark": mark, "version": version}


def add(undo: Undo) -> None:
    """Make the change that `undo` takes back. It may be there already. OSError if the kernel refuses."""
    with _tolerating(_THERE_ALREADY), IPRoute() as netlink:
        _do(netlink, "add", undo)


def remove(undo: Undo) -> None:
    """Take the change back. It may never have been made, or have gone with its interface. OSError if that fails."""
    with _tolerating(_NOT_THERE), IPRoute() as netlink:
        _do(netlink, "del", undo)


def _do(netlink: Any, command: str, undo: Undo) -> None:
    if undo["kind"] == ADDRESS:
        _do_address(netlink, command, undo)
    elif undo["kind"] == RULE:
        rule = {"priority": undo["priority"], "table": undo["table"], "fwmark": undo["mark"], "flags": _INVERTED}
        netlink.rule(command, family=_FAMILIES[undo.get("version", 4)], **rule)
    else:
        _do_route(netlink, command, undo)


def _do_address(netlink: Any, command: str, undo: Undo) -> None:
    address, index = undo["address"], _index(netlink, undo["interface"])
    if ip_address(address).version == 4:
        netlink.addr(command, index=index, address=address, prefixlen=32)
    else:
        flags = {"flags": _NO_DAD} if command == "add" else {}  # nobody else is on a TUN
        netlink.addr(command, index=index, address=address, prefixlen=128, family=socket.AF_INET6, **flags)


def _do_route(netlink: Any, command: str, undo: Undo) -> None:
    family = _FAMILIES[ip_network(undo["network"]).version]
    if undo["interface"] is None:
        netlink.route(command, dst=undo["network"], table=undo["table"], type="throw", family=family)
        return
    way: dict[str, Any] = {"oif": _index(netlink, undo["interface"])}
    if family == socket.AF_INET:
        way["scope"] = _SCOPE_LINK
    if undo["source"]:
        way["prefsrc"] = undo["source"]
    netlink.route(command, dst=undo["network"], table=undo["table"], family=family, **way)


@contextlib.contextmanager
def _tolerating(numbers: set[int]) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in numbers:
            raise OSError(error.code, str(error)) from error
    except OSError as error:
        if error.errno not in numbers:
            raise


def _index(netlink: Any, interface: str) -> int:
    found = netlink.link_lookup(ifname=interface)
    if not found:
        raise OSError(errno.ENODEV, f"no interface {interface}")
    return int(found[0])


def _names(netlink: Any) -> dict[int, str]:
    return {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}


def _destination(route: Any) -> Network:
    return ip_network((route.get_attr("RTA_DST"), route["dst_len"]), strict=False)
