"""Names under a hostname route: not ours to answer."""

from __future__ import annotations

from collections.abc import Callable

from warren.dnsfilter.core.verdict import Asked, Client, Kind, Resolved, Verdict

Routes = Callable[[bytes, Client], str | None]
"""(wire name, who asks) → id of the hostname route, or None. Called for every query: a dict look-up or two."""


class HostRoutes:
    """Asks the host of the resolver (the judge) whether the name lies under a hostname route."""

    name = "host_routes"

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def decide(self, asked: Asked) -> Resolved | None:
        route = self._routes(asked.question.name, asked.client)
        if route is None:
            return None
        return Resolved(b"", Verdict(Kind.HOST_ROUTE, self.name, route=route), asked.question)
