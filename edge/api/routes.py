"""/v1/routes"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter

from warren.edge.api.context import Body, Context
from warren.edge.store.records import DEFAULT_NETWORK, Kind, Route
from warren.edge.store.snapshot import Snapshot


class NewRoute(Body):
    """A destination and the tunnel that it lies behind."""

    kind: Kind
    value: str
    """A CIDR or a hostname."""
    tunnel: str
    """Name or id."""
    vnet: str = DEFAULT_NETWORK
    comment: str = ""


def router(context: Context) -> APIRouter:
    """The paths under /v1/routes."""
    api = APIRouter(prefix="/v1/routes")
    repository = context.repository

    @api.post("", status_code=201, response_model=None)
    async def add(body: NewRoute) -> dict[str, Any]:
        route = await repository.add_route(
            body.kind, body.value, body.tunnel, context.seconds(), vnet=body.vnet, comment=body.comment
        )
        shown = view(repository.snapshot, route)
        warning = _warning(route, context.identity.edges)
        return shown | {"warning": warning} if warning else shown

    @api.get("", response_model=None)
    async def show_all(kind: Kind | None = None) -> list[dict[str, Any]]:
        snapshot = repository.snapshot
        routes = (route for route in snapshot.routes.values() if kind in (None, route.kind))
        return [view(snapshot, route) for route in sorted(routes, key=lambda route: (route.vnet, route.value))]

    @api.delete("/{id_}", response_model=None)
    async def remove(id_: str) -> dict[str, Any]:
        return view(repository.snapshot, await repository.delete_route(id_, context.seconds()))

    return api


def view(snapshot: Snapshot, route: Route) -> dict[str, Any]:
    """A route as JSON."""
    tunnel = snapshot.tunnel(route.tunnel)
    return {
        "id": route.id,
        "kind": route.kind,
        "value": route.value,
        "tunnel": {"id": route.tunnel, "name": tunnel.name if tunnel else ""},
        "vnet": route.vnet,
        "comment": route.comment,
        "created": route.created,
        "revision": route.revision,
    }


def _warning(route: Route, edges: Iterable[str]) -> str:
    """A route over an edge's own address works (agents keep to the direct way), but is seldom meant."""
    if route.kind == "ip":
        network = ipaddress.ip_network(route.value)
        for edge in edges:
            host = edge.rpartition(":")[0].strip("[]")
            try:
                inside = ipaddress.ip_address(host) in network
            except ValueError:
                continue
            if inside:
                return f"{route.value} contains the edge's own address {host}, which agents reach directly all the same"
    return ""
