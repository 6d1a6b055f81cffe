"""The last word: does the grant allow exactly this, and does the connector's own ceiling?

Pure. The grant is verified offline (fabric/identity/grants.py); here it is held against what is asked for, by whom and
of which tunnel; and, once a name is resolved, the address against the ceiling and the addresses that are refused
unless the ceiling names them (protocol.md, section 4).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from warren.connector.revocations import Revocations
from warren.fabric.core import dnsrecords, dnswire
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.reasons import Reason
from warren.fabric.identity.grants import EdgeTime, Grant, Verifier
from warren.fabric.identity.keys import thumbprint

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

Own = Callable[[IPAddress, int], bool]
"""(address, port) → whether the connector listens there."""

RESERVED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the metadata services of the clouds (169.254.169.254)
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "fe80::/10",
        "fd00:ec2::254/128",  # a metadata service on IPv6
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry of `--allow`: a network, and the ports in it; no ports: all of them."""

    network: Network
    ports: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        ports = ",".join(f"{low}-{high}" if high > low else str(low) for low, high in self.ports)
        network = f"[{self.network}]" if self.network.version == 6 else str(self.network)
        return f"{network}:{ports}" if ports else network

    def covers(self, address: IPAddress, port: int) -> bool:
        if address.version != self.network.version or address not in self.network:
            return False
        return not self.ports or any(low <= port <= high for low, high in self.ports)


class Ceiling:
    """What the connector opens at most, whatever the edge grants. No entries: everything that is not reserved."""

    def __init__(self, entries: tuple[Allowed, ...] = (), own: Own = lambda address, port: False) -> None:
        """`own`: whether the connector itself listens there; only an entry for that one address opens it."""
        self._entries = entries
        self._own = own

    def sparing(self, own: Own) -> Ceiling:
        """The same, and nothing of the connector's own."""
        return Ceiling(self._entries, own)

    @classmethod
    def parse(cls, texts: object) -> Ceiling:
        """From `--allow` values such as "10.10.0.0/16:443,5432" or "[fd00::/8]:22". Raises ConfigError."""
        if not isinstance(texts, list | tuple):
            raise ConfigError("a list is wanted, such as [10.10.0.0/16]")
        return cls(tuple(_entry(str(text)) for text in texts))

    def __str__(self) -> str:
        return " ".join(map(str, self._entries)) or "everything but reserved addresses"

    def check(self, address: IPAddress, port: int) -> None:
        """Raises DeniedError: CEILING, RESERVED_ADDRESS."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        covering = [entry for entry in self._entries if entry.covers(address, port)]
        if not any(entry.network.num_addresses == 1 for entry in covering) and self._own(address, port):
            raise DeniedError(Reason.RESERVED_ADDRESS, f"{address} port {port} is the connector's own")
        if covering:
            return
        if any(address.version == network.version and address in network for network in RESERVED):
            raise DeniedError(Reason.RESERVED_ADDRESS, str(address))
        if self._entries:
            raise DeniedError(Reason.CEILING, f"{address} port {port}")


def _entry(text: str) -> Allowed:
    advice = f"{text}: use CIDR or CIDR:PORTS, such as 10.10.0.0/16 or 10.10.0.0/16:443,8000-8999"
    if text.startswith("["):
        network, bracket, ports = text[1:].partition("]")
        if not bracket or (ports and not ports.startswith(":")):
            raise ConfigError(f"{advice} ([fd00::/8]:443 for IPv6)")
        ports = ports[1:]
    elif text.count(":") > 1:
        network, ports = text, ""
    else:
        network, _, ports = text.partition(":")
    try:
        return Allowed(ipaddress.ip_network(network), tuple(_ports(part) for part in ports.split(",")) if ports else ())
    except ValueError as error:
        raise ConfigError(f"{advice}; {error}") from None


def _ports(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not (low.isdecimal() and (high.isdecimal() or not dash)):
        raise ValueError(f"{text!r} is no port, and no range of ports")
    pair = int(low), int(high if dash else low)
    if not 1 <= pair[0] <= pair[1] <= 65_535:
        raise ValueError(f"ports run from 1 to 65535, {text!r} does not")
    return pair


class Gate:
    """Holds every Open against its grant."""

    def __init__(self, tunnel: str, verifier: Verifier, ceiling: Ceiling) -> None:
        self.revocations = Revocations()
        self._tunnel = tunnel
        self.verifier = verifier
        self._ceiling = ceiling
        self._time = EdgeTime()
        self._welcomed: dict[str, float] = {}

    def clock(self, edge: str, edge_time: float, elapsed: float) -> None:
        """What time it is at an edge, as its session said: a new process may have another clock than the one before.
        `elapsed`: seconds on CLOCK_BOOTTIME."""
        self._time.forget(edge)
        self._welcomed[edge] = edge_time - elapsed

    def check(self, message: Open, key: bytes, elapsed: float) -> Grant:
        """The grant, if it allows exactly this flow to the device that proved `key`.

        Raises DeniedError: BAD_GRANT, GRANT_EXPIRED, GRANT_MISMATCH, STALE_GRANT.
        """
        grant = self._grant(message.grant, key, elapsed)
        if not grant.covers(message.protocol, message.address, message.host, message.port):
            raise DeniedError(Reason.GRANT_MISMATCH, "another destination, port or protocol")
        return grant

    def check_question(self, grant_bytes: bytes, key: bytes, question: dnswire.Question, elapsed: float) -> Grant:
        """As `check`, for a question: about the name that was granted, or for the name of the address that was.

        With a grant for UDP to an address it may be any question, for that address itself is asked.
        """
        grant = self._grant(grant_bytes, key, elapsed)
        if grant.protocol == "udp" and grant.address:
            self.check_address(grant.address, grant.low)
            return grant
        if grant.host and grant.host == question.text:
            return grant
        packed = dnsrecords.reverse_address(question.name) if question.type == dnswire.PTR else None
        if packed is None or grant.address != str(ipaddress.ip_address(packed)):
            raise DeniedError(Reason.GRANT_MISMATCH, "another name")
        return grant

    def check_address(self, address: str, port: int) -> None:
        """The ceiling, once a name is resolved. Raises DeniedError: CEILING, RESERVED_ADDRESS."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise DeniedError(Reason.GRANT_MISMATCH, "no address") from None
        self._ceiling.check(parsed, port)

    def _grant(self, data: bytes, key: bytes, elapsed: float) -> Grant:
        if not self._welcomed:
            raise DeniedError(Reason.STALE_GRANT, "no edge has told the time yet")
        grant = self.verifier.read_grant(data)
        self._time.saw(grant, elapsed)
        now = self._time.now(grant.edge, elapsed) or 0.0
        welcomed = self._welcomed.get(grant.edge)
        if welcomed is not None:
            now = max(now, welcomed + elapsed)
        grant = self.verifier.grant(data, now)
        if grant.tunnel != self._tunnel:
            raise DeniedError(Reason.GRANT_MISMATCH, "another tunnel")
        if grant.thumbprint != thumbprint(key):
            raise DeniedError(Reason.GRANT_MISMATCH, "another device")
        self.revocations.check(grant)
        return grant
