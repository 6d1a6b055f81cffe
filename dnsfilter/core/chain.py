"""The stages of the resolver, in their order, and why in that order.

A stage decides, or returns None and the next one is asked; it may also choose which upstreams the query would go to, or
another name to resolve instead. When all pass, the query is forwarded. What comes back is inspected.
"""

from __future__ import annotations

from typing import Protocol

from warren.dnsfilter.core.cache import Cache
from warren.dnsfilter.core.config import ResolverConfig
from warren.dnsfilter.core.stages.cached import Cached
from warren.dnsfilter.core.stages.filtering import Filtering, Slot
from warren.dnsfilter.core.stages.host_routes import HostRoutes, Routes
from warren.dnsfilter.core.stages.inspection import Inspection
from warren.dnsfilter.core.stages.rebinding import Rebinding
from warren.dnsfilter.core.stages.sanity import Sanity
from warren.dnsfilter.core.stages.zones import Zones
from warren.dnsfilter.core.verdict import Asked, Resolved


class Stage(Protocol):
    """One behaviour."""

    @property
    def name(self) -> str: ...

    def decide(self, asked: Asked) -> Resolved | None: ...


class Chain:
    """All stages for a query, those for the name behind an alias of ours, and the inspection of answers."""

    def __init__(self, config: ResolverConfig, cache: Cache, slot: Slot, routes: Routes | None = None) -> None:
        filtering = Filtering(slot)
        # Lists before rebinding: a blocked name should say which list it is on, whatever address it has.
        self.inspection = Inspection((filtering, Rebinding(slot)))
        zones = Zones(config.zones)
        cached = Cached(cache, self.inspection, slot)
        self._stages: tuple[Stage, ...] = (
            # First: what is no question to a forwarder must not reach anything that assumes class IN and a data type.
            Sanity(),
            # Before everything that answers: a name under a hostname route belongs to its connector, also when it lies
            # in a zone that would be private (payroll.internal) or is on somebody's block list.
            *((HostRoutes(routes),) if routes is not None else ()),
            # Before zones and cache: it is decided anew for each client, and nothing that is blocked costs a look-up.
            filtering,
            # After the policy, which may choose upstreams: here a private name is kept from the public ones for good.
            zones,
            # Last: it keeps what upstreams said, per group of upstreams, so whoever chooses the group comes before it.
            cached,
        )
        # The name behind an alias was chosen by the administrator: neither routes nor policy are asked about it.
        self._behind_alias: tuple[Stage, ...] = (zones, cached)

    def decide(self, asked: Asked) -> Resolved | None:
        """The first decision, or None: ask the upstreams of `asked.group`, about `asked.alias` where there is one."""
        for stage in self._stages:
            resolved = stage.decide(asked)
            if resolved is not None or asked.alias:
                return resolved
        return None

    def decide_alias(self, asked: Asked) -> Resolved | None:
        """The same for the name behind an alias."""
        for stage in self._behind_alias:
            resolved = stage.decide(asked)
            if resolved is not None:
                return resolved
        return None
