"""What leads into the TUN device: its address, the included networks as routes, and the rule for our own sockets.

The routes stand in a table of our own, into which a rule sends everything that does not carry our mark. So the main
table stays as it is, and an edge whose address lies in an included network is still reached from outside the TUN, for
our own sockets are marked (`SO_MARK` = `MARK`). Where a *strict* reverse path filter (rp_filter = 1) guards the
interface towards such an edge, the kernel drops its answers; 2 (loose, what distributions set) and 0 are fine.

A network that the host is itself on stays with its interface: `plan` says which included networks are suspended for
that, wholly or in part, and `HostRoutes.review` looks again whenever `NetworkChanges` calls.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, NamedTuple, Self

import structlog

from warren.agent.host.journal import Journal, Undo
from warren.fabric.core.errors import ConfigError

if TYPE_CHECKING:
    from warren.agent.host.netlink import LocalNetwork

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

MARK = 0x7761
"""SO_MARK of our own sockets."""
TABLE = 5_150
"""Our routing table. Above 255, where no distribution names one."""
PRIORITY = 5_150
"""Of our rule: behind the local table (0), before the main one (32766) and Tailscale's rules (5210 and on)."""

_CHANGE_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE (linux/rtnetlink.h)"""
_CALM_S = 0.2  # changes come in bursts: wait for the end of one

_log = structlog.get_logger(__name__)


class Suspended(NamedTuple):
    """`part` of an included network (often all of it) is left to the local network on `interface`."""

    included: Network
    part: Network
    interface: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`install` leads into the TUN, except for `leave`: parts of it that are a local network's, or excluded."""

    install: tuple[Network, ...] = ()
    leave: tuple[Network, ...] = ()
    suspended: tuple[Suspended, ...] = ()
    excluded: tuple[Network, ...] = ()
    """What of the included networks the user excluded: some of `leave`, and whole networks that are not installed."""
    lacking: tuple[Network, ...] = ()
    """Networks of IPv6 on a host that has it switched off."""


def plan(included: Iterable[Network], local: Collection[LocalNetwork], excluded: Collection[Network] = ()) -> Plan:
    """Which included networks become routes, and which are suspended because the host is itself on them. Pure.

    Included inside or equal to a local network: suspended as a whole. A local network inside an included one: only
    that part is. (As longest prefix would have it for the latter; for the former it would cut the host off.)
    Excluded ones are left alone in the same way, also when a longer prefix inside them is included.
    """
    install, leave, suspended, without = set(), set(), [], set()
    for network in sorted(set(included), key=_in_order):
        outer = [other for other in excluded if _is_inside(network, other)]
        if outer:
            without.add(network)
            continue
        inside = [other for other in local if _is_inside(network, other.network)]
        if inside:
            suspended.append(Suspended(network, network, inside[0].interface))
            continue
        install.add(network)
        inner = {other for other in excluded if _is_inside(other, network)}
        without |= inner
        leave |= inner
        for other in local:
            if _is_inside(other.network, network):
                leave.add(other.network)
                suspended.append(Suspended(network, other.network, other.interface))
    return Plan(_sorted(install), _sorted(leave), tuple(suspended), _sorted(without))


def _is_inside(network: Network, other: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.subnet_of(other)
    return isinstance(other, IPv6Network) and network.subnet_of(other)


def _in_order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def _sorted(networks: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(sorted(networks, key=_in_order))


class HostRoutes:
    """Address, rule and routes of one TUN device. Everything is journalled before it is made."""

    def __init__(
        self,
        journal: Journal,
        interface: str,
        address: IPv4Address,
        own: Iterable[Network] = (),
        address6: IPv6Address | None = None,
    ) -> None:
        """`address`, `address6`: of the host on the TUN, also the source of what apps send; None: no IPv6. `own`:
        networks of the agent's (the synthetic range with the virtual resolver), routed whatever the local networks
        are."""
        self.plan = Plan()
        self.six = False
        """Whether the interface has IPv6."""
        self._journal = journal
        self._interface = interface
        self._address = address
        self._address6 = address6
        self._own = frozenset(own)
        self._included: frozenset[Network] = frozenset()
        self._excluded: frozenset[Network] = frozenset()
        self._made: dict[tuple[str, ...], int] = {}  # what stands → its number in the journal
        self._lock = asyncio.Lock()

    async def set_up(self, included: Iterable[Network], excluded: Iterable[Network] = ()) -> Plan:
        """Make everything; `ConfigError` if the kernel refuses (what was made until then is undone by the journal)."""
        self._included, self._excluded = frozenset(included), frozenset(excluded)
        return await self._reviewed()

    async def review(self) -> Plan:
        """Look at the local networks again, and change what has to be changed; to be called after a change of link."""
        try:
            return await self._reviewed()
        except ConfigError as error:
            _log.warning("routes.review_failed", error=str(error))
            return self.plan

    async def _reviewed(self) -> Plan:
        async with self._lock:
            try:
                self.plan = await asyncio.to_thread(self._apply)
            except OSError as error:
                raise ConfigError(f"can't set routes on {self._interface}: {error.strerror or error}") from error
            return self.plan

    def _apply(self) -> Plan:
        from warren.agent.host import netlink  # here and not above: pyroute2 takes 0.2 s to import

        self.six = six = self._address6 is not None and netlink.has_ipv6(self._interface)
        own = (network for network in self._own if six or network.version == 4)
        lacking = {network for network in self._included if network.version == 6 and not six}
        wanted = plan(self._included - lacking, netlink.local_networks(self._interface), self._excluded)
        wanted = replace(wanted, lacking=_sorted(lacking))
        changes = [
            netlink.address_undo(self._interface, self._address),
            *([netlink.address_undo(self._interface, self._address6)] if six and self._address6 else []),
            *(netlink.route_undo(TABLE, network, None) for network in wanted.leave),
            *(
                netlink.route_undo(TABLE, network, self._interface, self._source(network))
                for network in _sorted({*own, *wanted.install})
            ),
            *(netlink.rule_undo(TABLE, PRIORITY, MARK, version) for version in ((4, 6) if six else (4,))),
        ]
        by_name = {_name(change): change for change in changes}
        for name in [name for name in reversed(self._made) if name not in by_name]:
            self._journal.undo(self._made.pop(name))
        for name, change in by_name.items():
            if name not in self._made:
                self._make(name, change, netlink.add)
        return wanted

    def _source(self, network: Network) -> Address | None:
        return self._address if network.version == 4 else self._address6

    def _make(self, name: tuple[str, ...], change: Undo, add: Callable[[Undo], None]) -> None:
        with self._journal.change(change) as number:
            add(change)
        self._made[name] = number


def _name(change: Undo) -> tuple[str, ...]:
    return tuple(str(value) for value in change.values())


class NetworkChanges:
    """Calls back (in the event loop, once for a burst) when a link, an address or a route of the host has changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _CHANGE_GROUPS))
        self._loop.add_reader(self._socket.fileno(), self._heard)

    def _heard(self) -> None:
        # What they say does not matter, nor whether some were lost (ENOBUFS): the plan is made from the whole state.
        try:
            while os.read(self._socket.fileno(), 65_536):
                pass
        except BlockingIOError:
            pass
        except OSError:  # libuv has stopped watching a socket with an error
            self._loop.remove_reader(self._socket.fileno())
            self._loop.add_reader(self._socket.fileno(), self._heard)
        if self._timer is None:
            self._timer = self._loop.call_later(_CALM_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._changed()

    def close(self) -> None:
        """Stop calling."""
        self._loop.remove_reader(self._socket.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
