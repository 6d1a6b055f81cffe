"""The stages of the resolver, in their order, and why in that order.

A stage decides, or returns None and the next one is asked; it may also choose which upstreams the query would go to.
When all pass, the query is forwarded. What an upstream answers goes back through those stages that inspect answers.
"""

from __future__ import annotations

from typing import Protocol

from warren.dnsfilter.core.cache import Cache
from warren.dnsfilter.core.config import ResolverConfig
from warren.dnsfilter.core.stages.cached import Cached
from warren.dnsfilter.core.stages.host_routes import HostRoutes, Routes
from warren.dnsfilter.core.stages.sanity import Sanity
from warren.dnsfilter.core.stages.zones import Zones
from warren.dnsfilter.core.verdict import Asked, Resolved


class Stage(Protocol):
    """One behaviour."""

    name: str

    def decide(self, asked: Asked) -> Resolved | None: ...


def build(config: ResolverConfig, cache: Cache, routes: Routes | None = None) -> tuple[Stage, ...]:
    """The chain, from the first stage that sees a query to the last before an upstream does."""
    stages: list[Stage] = [
        # First: what is no question to a forwarder must not reach anything that assumes class IN and a data type.
        Sanity(),
    ]
    if routes is not None:
        # Before everything that answers: a name under a hostname route belongs to its connector, also when it lies in
        # a zone that would be private (payroll.internal) or is on somebody's block list.
        stages.append(HostRoutes(routes))
    stages += [
        # Before cache and upstreams: here a private name is kept from the public upstreams for good.
        Zones(config.zones),
        # Last: it keeps what upstreams said, per group of upstreams, so whoever chooses the group comes before it.
        Cached(cache),
    ]
    return tuple(stages)


def decide(stages: tuple[Stage, ...], asked: Asked) -> Resolved | None:
    """The first decision, or None: ask the upstreams of `asked.group`."""
    for stage in stages:
        resolved = stage.decide(asked)
        if resolved is not None:
            return resolved
    return None
