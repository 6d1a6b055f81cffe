"""Addresses, routes and rules by netlink: reading them, changing them, undoing a change. Blocking: for threads.

(pyroute2's synchronous face raises inside a running event loop; `routes` calls this by `asyncio.to_thread`, the
guardian calls it directly.) IPv4; each function opens a socket of its own, 2 ms.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple

from pyroute2 import IPRoute, NetlinkError

from warren.agent.host.journal import Undo
from warren.agent.host.undo import ADDRESS, ROUTE, RULE

_MAIN_TABLE = 254
_SCOPE_LINK = 253
_TYPE_UNICAST = 1
_INVERTED = 2  # FIB_RULE_INVERT: "not"
_NOT_THERE = {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}
_THERE_ALREADY = {errno.EEXIST}


class LocalNetwork(NamedTuple):
    """A network that the host is on: one of its interfaces reaches it without a gateway."""

    network: IPv4Network
    interface: str


def local_networks(own_interface: str) -> list[LocalNetwork]:
    """Networks directly behind the host's interfaces, other than our own TUN."""
    with IPRoute() as netlink:
        names = _names(netlink)
        found = []
        for route in netlink.get_routes(family=socket.AF_INET, table=_MAIN_TABLE):
            interface = names.get(route.get_attr("RTA_OIF"), "")
            direct = route["scope"] == _SCOPE_LINK and route["type"] == _TYPE_UNICAST
            if direct and route["dst_len"] and interface != own_interface:
                found.append(LocalNetwork(_destination(route), interface))
    return sorted(set(found))


def taken_networks(own_interface: str) -> list[IPv4Network]:
    """Everything that any address or route (of any table) of the host occupies, but for defaults and our own TUN."""
    with IPRoute() as netlink:
        names = _names(netlink)
        taken = set()
        for address in netlink.get_addr(family=socket.AF_INET):
            if names.get(address["index"]) != own_interface:
                taken.add(IPv4Network((address.get_attr("IFA_ADDRESS"), address["prefixlen"]), strict=False))
        for route in netlink.get_routes(family=socket.AF_INET):
            if route["dst_len"] and names.get(route.get_attr("RTA_OIF")) != own_interface:
                taken.add(_destination(route))
    return sorted(taken)


def address_undo(interface: str, address: IPv4Address) -> Undo:
    """The undo of `add`: a /32 address on an interface. (It goes with the interface too.)"""
    return {"kind": ADDRESS, "interface": interface, "address": str(address)}


def route_undo(table: int, network: IPv4Network, interface: str | None, source: IPv4Address | None = None) -> Undo:
    """The undo of `add`: a route in a table of ours; without interface it says "look further, in the other tables"."""
    source_text = str(source) if source else None
    return {"kind": ROUTE, "table": table, "network": str(network), "interface": interface, "source": source_text}


def rule_undo(table: int, priority: int, mark: int) -> Undo:
    """The undo of `add`: the rule "what does not carry this mark looks into our table"."""
    return {"kind": RULE, "table": table, "priority": priority, "mark": mark}


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
        netlink.addr(command, index=_index(netlink, undo["interface"]), address=undo["address"], prefixlen=32)
    elif undo["kind"] == RULE:
        rule = {"priority": undo["priority"], "table": undo["table"], "fwmark": undo["mark"], "flags": _INVERTED}
        netlink.rule(command, family=socket.AF_INET, **rule)
    elif undo["interface"] is None:
        netlink.route(command, dst=undo["network"], table=undo["table"], type="throw")
    else:
        way = {"oif": _index(netlink, undo["interface"]), "scope": _SCOPE_LINK}
        if undo["source"]:
            way["prefsrc"] = undo["source"]
        netlink.route(command, dst=undo["network"], table=undo["table"], **way)


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


def _destination(route: Any) -> IPv4Network:
    return IPv4Network((route.get_attr("RTA_DST"), route["dst_len"]), strict=False)
