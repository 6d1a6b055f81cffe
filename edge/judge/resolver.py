"""DNS for devices: dnsfilter, with the hostname routes of the device's virtual network in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from warren.dnsfilter.core.config import ResolverConfig
from warren.dnsfilter.core.verdict import Client, Kind
from warren.dnsfilter.resolver import Resolver
from warren.edge.store.errors import InvalidError
from warren.edge.store.records import Device
from warren.edge.store.snapshot import Snapshot
from warren.edge.store.values import hostname
from warren.fabric.core import dnswire
from warren.fabric.core.messages.session import Answer, HostRoute


class JudgeResolver:
    """Answers one query at a time; knows who asks."""

    def __init__(self, config: ResolverConfig, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._resolver = Resolver(config, routes=self._route)

    async def answer(self, device: Device, message: bytes, transport: Literal["udp", "tcp"]) -> Answer | HostRoute:
        """Never raises for what the message says; `Answer.message` is empty where nothing should be said."""
        client = Client(
            device=device.name,
            user=device.user,
            groups=frozenset(device.groups),
            tags=frozenset(device.tags),
            vnet=device.vnet,
        )
        resolved = await self._resolver.resolve(message, client, transport)
        if resolved.verdict.kind is Kind.HOST_ROUTE and resolved.question is not None:
            return HostRoute(resolved.verdict.route, resolved.question.text.rstrip("."), device.vnet)
        return Answer(resolved.message)

    def _route(self, name: bytes, client: Client) -> str | None:
        """The id of the hostname route that a wire name lies under."""
        try:
            host = hostname(dnswire.name_text(name))
        except InvalidError:
            return None
        route = self._snapshot().host_route(client.vnet, host)
        return route.id if route else None

    async def close(self) -> None:
        await self._resolver.close()
