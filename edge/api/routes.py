"""/v1/routes"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from warren.edge.api.context import Body, Context
from warren.edge.api.live import Live
from warren.edge.judge.decide import Refused, destination, routes_to
from warren.edge.judge.routing import Address
from warren.edge.store import values
from warren.edge.store.errors import InvalidError
from warren.edge.store.records import DEFAULT_NETWORK, Kind, Route
from warren.edge.store.snapshot import Snapshot
from warren.edge.store.values import NAME_LIMIT


class NewRoute(Body):
    """A destination and the tunnel that it lies behind."""

    kind: Kind
    value: str
    """A CIDR, a hostname or a zone."""
    tunnel: str
    """Name or id."""
    vnet: str = DEFAULT_NETWORK
    comment: str = ""
    servers: tuple[str, ...] = Field(default=(), strict=False)
    """Of a resolver route: ADDRESS or ADDRESS:PORT."""


def router(context: Context) -> APIRouter:
    """The paths under /v1/routes."""
    api = APIRouter(prefix="/v1/routes")
    repository = context.repository

    @api.post("", status_code=201, response_model=None)
    async def add(body: NewRoute) -> dict[str, Any]:
        route = await repository.add_route(
            body.kind,
            body.value,
            body.tunnel,
            context.seconds(),
            vnet=body.vnet,
            comment=body.comment,
            servers=body.servers,
        )
        shown = view(repository.snapshot, route)
        warning = _warning(route, context.identity.edges)
        return shown | {"warning": warning} if warning else shown

    @api.get("", response_model=None)
    async def show_all(kind: Kind | None = None) -> list[dict[str, Any]]:
        snapshot = repository.snapshot
        routes = (route for route in snapshot.routes.values() if kind in (None, route.kind))
        return [view(snapshot, route) for route in sorted(routes, key=lambda route: (route.vnet, route.value))]

    @api.get("/find", response_model=None)
    async def find(to: Annotated[str, Query(max_length=NAME_LIMIT)], vnet: str = DEFAULT_NETWORK) -> dict[str, Any]:
        return _found(repository.snapshot, to, values.virtual_network(vnet), context.live)

    @api.delete("/{id_}", response_model=None)
    async def remove(id_: str) -> dict[str, Any]:
        return view(repository.snapshot, await repository.delete_route(id_, context.seconds()))

    return api


def _found(snapshot: Snapshot, to: str, vnet: str, live: Live) -> dict[str, Any]:
    """Which route a destination takes, found by what decides flows; and those that it does not take, and why."""
    target = destination(to)
    if isinstance(target, Refused):
        raise InvalidError(target.detail)
    routes = _all_to(snapshot, vnet, target)
    taken, others = (routes[0] if routes else None), routes[1:]
    elsewhere = {name for name in snapshot.networks if name != vnet and _all_to(snapshot, name, target)}
    return {
        "destination": str(target),
        "vnet": vnet,
        "route": view(snapshot, taken) | {"status": live.status(taken.tunnel)} if taken else None,
        "why": _why(target, taken, vnet),
        "instead_of": [view(snapshot, route) for route in others],
        "elsewhere": sorted(elsewhere),
    }


def _all_to(snapshot: Snapshot, vnet: str, target: Address | str) -> list[Route]:
    """As flows and queries take them: a name may also lie in a resolver route's zone."""
    if isinstance(target, str):
        return [*snapshot.network(vnet).names.candidates(target)]
    return [*routes_to(snapshot, vnet, target)]


def _why(target: Address | str, taken: Route | None, vnet: str) -> str:
    if taken is None:
        kind = "hostname" if isinstance(target, str) else "CIDR"
        return f"no {kind} route in virtual network {vnet} leads there: agents leave it to the host they run on"
    if not isinstance(target, str):
        return f"{taken.value} is the longest prefix that contains it"
    if taken.kind == "resolver":
        return f"name servers of {taken.value} are asked through the tunnel; the address they say takes its own route"
    if taken.value == target:
        return "the route is for exactly this name"
    return f"{taken.value} is the longest wildcard that stands for it"


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
        "servers": list(route.servers),
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
