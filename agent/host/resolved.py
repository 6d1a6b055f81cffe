"""systemd-resolved: names behind tunnels are asked of the agent, through the link that is its TUN; other names are not.

Over D-Bus (org.freedesktop.resolve1(5)), by `busctl`, which is there wherever systemd is: the guardian needs no library
for the undo, and no D-Bus connection is held. Where programs do not ask resolved's stub, the file is the way
(`resolver.ResolvConf`).

What resolved keeps for a link it forgets with the link; the undo, RevertLink, is made all the same.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from warren.agent.host.journal import Journal, Undo
from warren.agent.host.resolver import MAX_NAMESERVERS, Previous
from warren.agent.host.undo import RESOLVED
from warren.fabric.core.errors import ConfigError

CALL_S = 5.0
"""Seconds for one call: more than resolved ever takes, less than a person waits."""
DOMAINS_MAX = 256
"""Domains that resolved takes for one link (LINK_SEARCH_DOMAINS_MAX in its source). With more, all names come to us."""

_SERVICE, _OBJECT = "org.freedesktop.resolve1", "/org/freedesktop/resolve1"
_MANAGER = "org.freedesktop.resolve1.Manager"
_STUBS = re.compile(rb"^\s*nameserver\s+127\.0\.0\.5[34]\s*$", re.MULTILINE)
EVERYTHING = "."
"""The domain of all names."""


def is_asked(resolv_conf: Path) -> bool:
    """Whether programs ask resolved's stub here, and it can be told things."""
    try:
        content = resolv_conf.read_bytes()[:65_536]
    except OSError:
        return False
    if not _STUBS.search(content) or shutil.which("busctl") is None:
        return False
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    try:
        return bool(_busctl("call", *bus, "NameHasOwner", "s", _SERVICE)[0])
    except OSError:
        return False


class Resolved:
    """One link's settings at resolved: a `SystemResolver`. Blocking calls, some 10 ms each."""

    way = "set by systemd-resolved"

    def __init__(self, journal: Journal, nameserver: IPv4Address, interface: str) -> None:
        self._journal = journal
        self._nameserver = nameserver
        self._interface = interface
        self._index = 0
        self._number = 0
        self._domains: tuple[tuple[str, ...], tuple[str, ...]] = (), ()

    def install(self, domains: tuple[str, ...] = (), search: tuple[str, ...] = ()) -> Previous:
        """Makes the agent the link's nameserver, for these domains only. See `SystemResolver`."""
        try:
            self._index = socket.if_nametoindex(self._interface)
            undo: Undo = {"kind": RESOLVED, "index": self._index, "interface": self._interface}
            with self._journal.change(undo) as self._number:
                self._set_up(domains, search)
            return self._others()
        except OSError as error:
            raise ConfigError(f"systemd-resolved does not take the agent as a resolver: {error}") from None

    def _set_up(self, domains: tuple[str, ...], search: tuple[str, ...]) -> None:
        self._call("SetLinkDNS", "a(iay)", 1, socket.AF_INET, 4, *self._nameserver.packed)
        self._call("SetLinkDefaultRoute", "b", "false")
        for member in ("SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSOverTLS", "SetLinkDNSSEC"):
            self._call(member, "s", "no")  # a synthetic address can't be signed
        self._set_domains(domains, search)

    def follow(self, domains: tuple[str, ...], search: tuple[str, ...] = ()) -> Previous:
        """See `SystemResolver`. The other links' nameservers are looked at anew."""
        try:
            if (domains, search) != self._domains:
                self._set_domains(domains, search)
            return self._others()
        except OSError as error:
            raise ConfigError(f"systemd-resolved does not follow a change of names: {error}") from None

    def _set_domains(self, domains: tuple[str, ...], search: tuple[str, ...]) -> None:
        shown = domains if len(domains) + len(search) <= DOMAINS_MAX else (EVERYTHING,)
        routed = [(domain, "true") for domain in shown if domain not in search]  # true: for routing, not for searching
        pairs = [*((domain, "false") for domain in search), *routed]
        self._call("SetLinkDomains", "a(sb)", len(pairs), *(word for pair in pairs for word in pair))
        self._domains = domains, search
        _busctl("call", _SERVICE, _OBJECT, _MANAGER, "FlushCaches")  # what was not there before may be there now

    def _call(self, member: str, signature: str, *arguments: object) -> None:
        words = [str(argument) for argument in arguments]
        _busctl("call", _SERVICE, _OBJECT, _MANAGER, member, f"i{signature}", str(self._index), *words)

    def _others(self) -> Previous:
        """Nameservers of the other links; if there are none, resolved's fallback."""
        for name in ("DNS", "FallbackDNS"):
            found = _busctl("get-property", _SERVICE, _OBJECT, _MANAGER, name)
            servers = [_address(index, packed) for index, _, packed in found if index != self._index]
            if servers:
                return Previous(tuple(servers[:MAX_NAMESERVERS]))
        return Previous(())

    def still_ours(self) -> bool:
        """False if another program has given the link another nameserver, or none."""
        try:
            found = _busctl("get-property", _SERVICE, _OBJECT, _MANAGER, "DNS")
        except OSError:
            return False
        return any(index == self._index and bytes(packed) == self._nameserver.packed for index, _, packed in found)

    def undo(self) -> str | None:
        """Gives the link back as it was. OSError if that failed (the undo stays in the journal)."""
        return self._journal.undo(self._number)


def revert(undo: Undo) -> str | None:
    """RevertLink; nothing is left to do for a link that is gone, or whose number another has. OSError if it failed."""
    index, interface = int(undo["index"]), str(undo["interface"])
    try:
        if socket.if_indextoname(index) != interface:
            return None
        gone = False
    except OSError:
        gone = True
    try:
        _busctl("call", _SERVICE, _OBJECT, _MANAGER, "RevertLink", "i", str(index))
        _busctl("call", _SERVICE, _OBJECT, _MANAGER, "FlushCaches")
    except OSError:
        if not gone:
            raise
    return None


def routing_domains(zones: Iterable[str], networks: Iterable[IPv4Network | IPv6Network]) -> tuple[str, ...]:
    """The domains whose names are asked of the agent: the routed zones, and the names of captured addresses.

    A domain stands for all below it, and reverse zones are whole octets (IPv6: digits): what comes too much, the agent
    passes on to the resolvers that were there before.
    """
    found = {zone.removeprefix("*.") for zone in zones} | {reverse_zone(network) for network in networks}
    return tuple(sorted(found))


def reverse_zone(network: IPv4Network | IPv6Network) -> str:
    """The reverse zone that holds a network: 172.16.0.0/12 is in 172.in-addr.arpa (RFC 1035, 3.5; RFC 3596, 2.5)."""
    if isinstance(network, IPv4Network):
        labels, step, suffix = str(network.network_address).split("."), 8, "in-addr.arpa"
    else:
        labels, step, suffix = list(network.network_address.exploded.replace(":", "")), 4, "ip6.arpa"
    kept = labels[: network.prefixlen // step]
    return ".".join([*reversed(kept), suffix])


def _address(index: int, packed: list[int]) -> str:
    if len(packed) == 4:
        return str(IPv4Address(bytes(packed)))
    address = IPv6Address(bytes(packed))
    return f"{address}%{socket.if_indextoname(index)}" if address.is_link_local and index else str(address)


def _busctl(*words: str) -> Any:
    """What a call or a property gives. Raises OSError with what busctl says."""
    command = ["busctl", "--system", "--json=short", f"--timeout={CALL_S:g}", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * CALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise TimeoutError("busctl does not come back") from None
    if done.returncode != 0:
        raise OSError(" ".join(done.stderr.split()) or f"busctl ends with {done.returncode}")
    try:
        return json.loads(done.stdout)["data"] if done.stdout.strip() else None
    except (ValueError, KeyError, TypeError):
        raise OSError(f"busctl says {done.stdout[:80]!r}") from None
