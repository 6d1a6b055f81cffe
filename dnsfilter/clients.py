"""Who stands behind an address, for a resolver that is asked over the local network."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from warren.dnsfilter.core.verdict import Client
from warren.dnsfilter.settings import ClientSettings
from warren.fabric.core.errors import ConfigError

KNOWN_MAX: Final = 10_000
"""Addresses whose client is remembered: 400 bytes each."""


class ClientBook:
    """Address → client, by the longest network that it is in."""

    def __init__(self, clients: Sequence[ClientSettings]) -> None:
        self._networks: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ClientSettings]] = []
        self._known: dict[str, Client] = {}
        self._clients = tuple(clients)
        for client in clients:
            for text in client.networks:
                self._networks.append((ipaddress.ip_network(text, strict=False), client))
        self._networks.sort(key=lambda entry: -entry[0].prefixlen)

    def of(self, address: str) -> Client:
        """The client of that address; only the address is known of one that is in no network."""
        client = self._known.get(address)
        if client is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            client = self._known[address] = self._look_up(address)
        return client

    def named(self, text: str) -> Client:
        """The client with that device or user name, or at that address. ConfigError if there is none."""
        for client in self._clients:
            if text in (client.device, client.user):
                return _client(client, str(ipaddress.ip_network(client.networks[0], strict=False).network_address))
        try:
            return self.of(str(ipaddress.ip_address(text)))
        except ValueError:
            known = ", ".join(sorted({client.device or client.user for client in self._clients})) or "none"
            raise ConfigError(f"{text!r} is no address and no client of the configuration; there are {known}") from None

    def _look_up(self, address: str) -> Client:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return Client(address=address)
        mapped = parsed.ipv4_mapped if parsed.version == 6 else None
        for network, client in self._networks:
            if (mapped or parsed) in network:
                return _client(client, str(mapped or parsed))
        return Client(address=str(mapped or parsed))


def _client(settings: ClientSettings, address: str) -> Client:
    groups, tags = frozenset(settings.groups), frozenset(settings.tags)
    return Client(device=settings.device, user=settings.user, groups=groups, tags=tags, address=address)
