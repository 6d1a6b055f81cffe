"""warren route: which destinations lie behind which tunnel."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

import typer

from warren.edge.client import Client, EdgeError
from warren.edge.commands import options, screen
from warren.fabric.core.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Routes: which addresses and hostnames lie behind which tunnel.",
)
ip = typer.Typer(no_args_is_help=True, help="Routes by address: a CIDR; the longest prefix wins.")
host = typer.Typer(no_args_is_help=True, help="Routes by hostname; the connector resolves it where it lives.")
app.add_typer(ip, name="ip")
app.add_typer(host, name="host")

Tunnel = Annotated[str, typer.Option("--tunnel", metavar="NAME", help="Name or id of the tunnel it lies behind.")]
Vnet = Annotated[
    str, typer.Option("--vnet", metavar="NAME", help="Virtual network, so that overlapping CIDRs live side by side.")
]
OnlyVnet = Annotated[str, typer.Option("--vnet", metavar="NAME", help="Only in this virtual network.")]
OnlyTunnel = Annotated[str, typer.Option("--tunnel", metavar="NAME", help="Only the one to this tunnel (name or id).")]
Comment = Annotated[str, typer.Option("--comment", metavar="TEXT", help="A note for yourself.")]


@ip.command("add", epilog="Example:  `warren route ip add 10.10.0.0/16 --tunnel office`")
def add_ip(
    cidr: Annotated[str, typer.Argument(metavar="CIDR", help="As in 10.10.0.0/16 or 2001:db8:7::/48.")],
    tunnel: Tunnel,
    vnet: Vnet = "default",
    comment: Comment = "",
    socket: options.Socket = options.SOCKET,
) -> None:
    """Lead a CIDR through a tunnel."""
    _add(socket, {"kind": "ip", "value": network(cidr), "tunnel": tunnel, "vnet": vnet, "comment": comment})


@host.command("add", epilog="Example:  `warren route host add payroll.internal --tunnel office`")
def add_host(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in payroll.internal.")],
    tunnel: Tunnel,
    vnet: Vnet = "default",
    comment: Comment = "",
    socket: options.Socket = options.SOCKET,
) -> None:
    """Lead a hostname through a tunnel."""
    _add(socket, {"kind": "host", "value": name, "tunnel": tunnel, "vnet": vnet, "comment": comment})


@ip.command("list", epilog="Example:  `warren route ip list --json`")
def list_ip(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show the routes by address."""
    _list(socket, "ip", json)


@host.command("list", epilog="Example:  `warren route host list --json`")
def list_host(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show the routes by hostname."""
    _list(socket, "host", json)


@app.command("list", epilog="Example:  `warren route list --json`")
def list_all(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show all routes."""
    _list(socket, "", json)


@ip.command("delete", epilog="Example:  `warren route ip delete 10.10.0.0/16`")
def delete_ip(
    which: Annotated[str, typer.Argument(metavar="CIDR", help="The route's CIDR or id.")],
    tunnel: OnlyTunnel = "",
    vnet: OnlyVnet = "",
    socket: options.Socket = options.SOCKET,
) -> None:
    """Delete a route by address."""
    _delete(socket, "ip", which, tunnel, vnet)


@host.command("delete", epilog="Example:  `warren route host delete payroll.internal`")
def delete_host(
    which: Annotated[str, typer.Argument(metavar="NAME", help="The route's hostname or id.")],
    tunnel: OnlyTunnel = "",
    vnet: OnlyVnet = "",
    socket: options.Socket = options.SOCKET,
) -> None:
    """Delete a route by hostname."""
    _delete(socket, "host", which, tunnel, vnet)


def network(text: str) -> str:
    """The CIDR in its one form. Raises ConfigError; the edge has the last word on what it carries."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(f"{text[:80]!r} is no CIDR: an address and a prefix length, as in 10.10.0.0/16") from None
    if ipaddress.ip_address(text.partition("/")[0]) != found.network_address:
        raise ConfigError(f"{text} has bits set behind its prefix: write {found}")
    return str(found)


def _add(socket: Any, body: dict[str, str]) -> None:
    route = Client(socket).post("/v1/routes", body)
    screen.remark(f"{route['value']} leads through tunnel {route['tunnel']['name']} now ({route['id']}).")
    if route.get("warning"):
        screen.remark(f"Beware: {route['warning']}.")


def _list(socket: Any, kind: str, json: bool) -> None:
    routes = Client(socket).get(f"/v1/routes?kind={kind}" if kind else "/v1/routes")
    if json:
        screen.show_json(routes)
        return
    rows = [
        (
            route["value"],
            route["tunnel"]["name"],
            route["vnet"],
            screen.moment(route["created"]),
            route["id"],
            route["comment"],
        )
        for route in routes
    ]
    example = "warren route host add payroll.internal" if kind == "host" else "warren route ip add 10.10.0.0/16"
    nothing = f"There are no such routes; add one:  {example} --tunnel NAME"
    screen.show_table(("DESTINATION", "TUNNEL", "VNET", "CREATED", "ID", "COMMENT"), rows, nothing)


def _delete(socket: Any, kind: str, which: str, tunnel: str, vnet: str) -> None:
    """By value it is found here; the edge knows ids only."""
    client = Client(socket)
    found = [
        route
        for route in client.get(f"/v1/routes?kind={kind}")
        if which == route["id"]
        or (
            route["value"] == _form(kind, which)
            and tunnel in ("", route["tunnel"]["name"], route["tunnel"]["id"])
            and vnet in ("", route["vnet"])
        )
    ]
    if not found:
        raise EdgeError(f"there is no such route: {which[:80]}; `warren route {kind} list` shows them")
    if len(found) > 1:
        listed = screen.choices(found, ("vnet", "tunnel.name", "id"))
        raise EdgeError(f"{len(found)} routes are for {which[:80]}: give --vnet, --tunnel, or an id of {listed}")
    route = client.delete("/v1/routes", found[0]["id"])
    screen.remark(f"{route['value']} leads through tunnel {route['tunnel']['name']} no more.")


def _form(kind: str, text: str) -> str:
    if kind == "host":
        return text.lower().removesuffix(".")
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        return text
