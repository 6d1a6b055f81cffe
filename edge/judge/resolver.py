"""DNS for devices: dnsfilter, with the routes of the device's virtual network in front.

1. A device that asks too much is made to wait, so that its flood slows itself and nobody else.
2. A name under a hostname route is the connector's; one in a resolver route's zone is its servers': the agent asks
   them, end to end, and nothing of it is answered, cached or filtered here.
3. Everything else goes through the chain (dnsfilter/core/chain.py), with who asks.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

from warren.dnsfilter.core.config import ResolverConfig
from warren.dnsfilter.core.limit import Limiter
from warren.dnsfilter.core.stages.filtering import Filter, Slot
from warren.dnsfilter.core.verdict import Client, Kind, Resolved, Verdict
from warren.dnsfilter.explain import explain
from warren.dnsfilter.querylog import QueryLog
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.settings import LimitSettings
from warren.dnsfilter.trust import Trust
from warren.edge.store.errors import InvalidError
from warren.edge.store.records import Device
from warren.edge.store.snapshot import Snapshot
from warren.edge.store.values import hostname
from warren.fabric.core import dnswire
from warren.fabric.core.messages.session import Answer, HostRoute

UNDER_WAY: Final = 64
"""Queries of one device at once, over all its sessions: what an agent has under way on one."""
SLOWED: Final = 1.0
"""Seconds that a query over the limit waits for its refusal: with 64 under way a flood is 64 queries a second."""
LOADING: Final = 3.0
"""Seconds that a query waits for the lists at the start: nothing is answered unfiltered."""


class JudgeResolver:
    """Answers one query at a time; knows who asks."""

    def __init__(
        self,
        config: ResolverConfig,
        snapshot: Callable[[], Snapshot],
        *,
        limit: LimitSettings | None = None,
        log: QueryLog | None = None,
        filter: Filter | None = None,
        trust: Trust | None = None,
        loaded: asyncio.Event | None = None,
    ) -> None:
        """`loaded` is set when the filter is the one that should be."""
        self.config = config
        self.verdicts: Counter[Kind] = Counter()
        self.blocked: Counter[str] = Counter()
        """By list, of those in use."""
        self.refused: Counter[str] = Counter()
        """Queries that were not looked at: `rate`, `under_way`, `loading`."""
        self.log = log
        self.resolver = Resolver(config, routes=self._route, filter=filter, trust=trust)
        self._snapshot = snapshot
        self._limiter = Limiter(limit.per_second, limit.burst) if limit is not None else None
        self._under_way: Counter[str] = Counter()
        self._loaded = loaded

    @property
    def slot(self) -> Slot:
        """Where the filter in use stands."""
        return self.resolver.slot

    async def answer(self, device: Device, message: bytes, transport: Literal["udp", "tcp"]) -> Answer | HostRoute:
        """Never raises for what the message says; `Answer.message` is empty where nothing should be said."""
        if self._under_way[device.id] >= UNDER_WAY:
            return self._refuse("under_way", message, "too many queries of this device under way")
        self._under_way[device.id] += 1
        try:
            began = time.monotonic()
            if self._limiter is not None and not self._limiter.allows(device.id, began):
                await asyncio.sleep(SLOWED)
                return self._refuse("rate", message, "this device asks more than its limit")
            return await self._answered(device, message, transport, began)
        finally:
            self._under_way[device.id] -= 1
            if not self._under_way[device.id]:
                del self._under_way[device.id]

    async def _answered(
        self, device: Device, message: bytes, transport: Literal["udp", "tcp"], began: float
    ) -> Answer | HostRoute:
        question = dnswire.read_question(message)
        client = client_of(device)
        if isinstance(question, dnswire.Question):
            if self._is_no_host(question.name, device.vnet):
                return _refused(question, dnswire.EDE_NOT_SUPPORTED, "under a hostname route, but no hostname")
            if self._route(question.name, client) is None and not await self._is_loaded():
                return self._refuse("loading", message, "the lists are being loaded")
        resolved = await self.resolver.resolve(message, client, transport)
        self._note(resolved, client, time.monotonic() - began)
        if resolved.verdict.kind is Kind.HOST_ROUTE and resolved.question is not None:
            route = self._snapshot().routes.get(resolved.verdict.route)
            servers = route.servers if route is not None else ()
            return HostRoute(resolved.verdict.route, resolved.question.text.rstrip("."), device.vnet, servers)
        return Answer(resolved.message)

    async def explain(self, device: Device, query: bytes, *, ask: bool = False) -> dict[str, str]:
        """What would happen to a query of the device, and why; decided by the code that answers it."""
        question, client = dnswire.read_question(query), client_of(device)
        if isinstance(question, dnswire.Question) and self._is_no_host(question.name, device.vnet):
            return {"verdict": "refused", "stage": "host_routes", "rule": "under a hostname route, but no hostname"}
        said = await explain(self.resolver, query, client, self.config, ask=ask)
        route = self._snapshot().routes.get(said.get("route", ""))
        if route is not None:
            tunnel = self._snapshot().tunnel(route.tunnel)
            said["rule"] = f"{'resolver' if route.servers else 'hostname'} route {route.value}"
            said["tunnel"] = tunnel.name if tunnel is not None else ""
            said["servers"] = ", ".join(route.servers)
        return said

    def _note(self, resolved: Resolved, client: Client, seconds: float) -> None:
        verdict: Verdict = resolved.verdict
        self.verdicts[verdict.kind] += 1
        if verdict.list and verdict.kind is Kind.BLOCKED:
            self.blocked[verdict.list] += 1
        if self.log is not None:
            self.log.add(resolved, client, time.time(), seconds)

    async def _is_loaded(self) -> bool:
        if self._loaded is None or self._loaded.is_set():
            return True
        try:
            async with asyncio.timeout(LOADING):
                await self._loaded.wait()
        except TimeoutError:
            return False
        return True

    def _refuse(self, why: str, message: bytes, words: str) -> Answer:
        self.refused[why] += 1
        question = dnswire.read_question(message)
        if isinstance(question, dnswire.Unreadable):
            return Answer(question.answer)
        return _refused(question, dnswire.EDE_OTHER, words, dnswire.SERVFAIL if why == "loading" else dnswire.REFUSED)

    def _route(self, name: bytes, client: Client) -> str | None:
        """The id of the route that a wire name lies under: a hostname route, or a resolver route."""
        host = _host(name)
        route = self._snapshot().network(client.vnet).names.find(host) if host is not None else None
        return route.id if route else None

    def _is_no_host(self, name: bytes, vnet: str) -> bool:
        """Whether it lies under a wildcard but is no hostname (spaces, dots in labels): nobody else is asked about it,
        for it is a private name, and no grant can be for it."""
        if _host(name) is not None:
            return False
        parent = next((host for suffix in dnswire.suffixes(name) if (host := _host(suffix)) is not None), "")
        return self._snapshot().network(vnet).names.find(f"under.{parent}") is not None

    async def close(self) -> None:
        await self.resolver.close()


def client_of(device: Device) -> Client:
    """Who asks, as policies know it."""
    return Client(
        device=device.name,
        user=device.user,
        groups=frozenset(device.groups),
        tags=frozenset(device.tags),
        vnet=device.vnet,
    )


def _refused(question: dnswire.Question, code: int, words: str, rcode: int = dnswire.REFUSED) -> Answer:
    return Answer(dnswire.answer(question, rcode, extended=dnswire.Extended(code, f"warren: {words}")))


def _host(name: bytes) -> str | None:
    """A wire name in the form that routes have; None if it is no hostname."""
    try:
        return hostname(dnswire.name_text(name))
    except InvalidError:
        return None
