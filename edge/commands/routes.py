"""warren route: which destinations lie behind which tunnel."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any
from urllib.parse import urlencode

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
resolver = typer.Typer(no_args_is_help=True, help="Zones that a private network's own name servers answer for.")
app.add_typer(resolver, name="resolver")

_EXAMPLES = {
    "ip": "warren route ip add 10.10.0.0/16",
    "host": "warren route host add payroll.internal",
    "resolver": "warren route resolver add corp.example --server 10.10.0.53",
}

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
    json: options.Json = False,
) -> None:
    """Lead a CIDR through a tunnel."""
    _add(socket, {"kind": "ip", "value": network(cidr), "tunnel": tunnel, "vnet": vnet, "comment": comment}, json)


@host.command("add", epilog="Example:  `warren route host add payroll.internal --tunnel office`")
def add_host(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As in payroll.internal, or *.corp.internal for all names under it.")
    ],
    tunnel: Tunnel,
    vnet: Vnet = "default",
    comment: Comment = "",
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Lead a hostname through a tunnel."""
    _add(socket, {"kind": "host", "value": name, "tunnel": tunnel, "vnet": vnet, "comment": comment}, json)


@resolver.command(
    "add",
    epilog="Examples:  `warren route resolver add corp.example --server 10.10.0.53 --tunnel office`   ·   "
    "`warren route resolver add 10.10.0.0/16 --server 10.10.0.53 --tunnel office`",
)
def add_resolver(
    zone: Annotated[
        str,
        typer.Argument(metavar="ZONE", help="As in corp.example: that name and all below; or a CIDR's reverse zone."),
    ],
    server: Annotated[
        list[str], typer.Option("--server", metavar="ADDRESS", help="Name server behind the tunnel; repeat it.")
    ],
    tunnel: Tunnel,
    vnet: Vnet = "default",
    comment: Comment = "",
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Have a zone answered by name servers behind a tunnel.

    Devices ask them end to end, through the connector; the edge sees which name was asked for, not the answer. Add the
    CIDR that the answers lead to as well: warren route ip add.
    """
    _add(
        socket,
        {"kind": "resolver", "value": zone, "tunnel": tunnel, "vnet": vnet, "comment": comment, "servers": server},
        json,
    )


@app.command("list", epilog="Example:  `warren route list --json`")
def list_all(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show all routes."""
    _list(socket, "", json)


@app.command("get", epilog="Example:  `warren route get db.corp.internal --vnet lab`")
def get(
    destination: Annotated[str, typer.Argument(metavar="ADDRESS|NAME", help="As in 10.10.0.5 or payroll.internal.")],
    vnet: Vnet = "default",
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Tell which route a destination takes, and why. The answer comes from the code that decides flows."""
    query = urlencode({"to": destination, "vnet": vnet})
    found = Client(socket).get(f"/v1/routes/find?{query}")
    if json:
        screen.show_json(found)
        return
    route = found["route"]
    if route is None:
        others = f"; there is one in virtual network {', '.join(found['elsewhere'])}" if found["elsewhere"] else ""
        raise EdgeError(f"{found['destination']}: {found['why']}{others}")
    rows = [
        ("destination", found["destination"]),
        ("tunnel", f"{route['tunnel']['name']} ({route['status']})"),
        ("route", f"{route['value']} in virtual network {route['vnet']} ({route['id']})"),
        ("why", found["why"]),
        *(("instead of", f"{other['value']} to tunnel {other['tunnel']['name']}") for other in found["instead_of"]),
    ]
    screen.show_pairs(rows)


def _list_and_delete(group: typer.Typer, kind: str, example: str, what: str, form: str, deletes: str) -> None:
    """The two verbs that are the same for each kind of route."""
    of_kind: Any = typer.Argument(metavar=form, help=f"The route's {form} or id.")

    @group.command("list", help=f"Show {what}.", epilog=f"Example:  `warren route {kind} list --json`")
    def show(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
        _list(socket, kind, json)

    @group.command("delete", help=deletes, epilog=f"Example:  `warren route {kind} delete {example}`")
    def delete(
        which: str = of_kind,
        tunnel: OnlyTunnel = "",
        vnet: OnlyVnet = "",
        socket: options.Socket = options.SOCKET,
        json: options.Json = False,
    ) -> None:
        _delete(socket, kind, which, tunnel, vnet, json)


_list_and_delete(ip, "ip", "10.10.0.0/16", "the routes by address", "CIDR", "Delete a route by address.")
_list_and_delete(host, "host", "payroll.internal", "the routes by hostname", "NAME", "Delete a route by hostname.")
_list_and_delete(
    resolver,
    "resolver",
    "corp.example",
    "the zones with their name servers",
    "ZONE",
    "Leave a zone to the device's other resolvers again.",
)


def network(text: str) -> str:
    """The CIDR in its one form. Raises ConfigError; the edge has the last word on what it carries."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(f"{text[:80]!r} is no CIDR: an address and a prefix length, as in 10.10.0.0/16") from None
    if ipaddress.ip_address(text.partition("/")[0]) != found.network_address:
        raise ConfigError(f"{text} has bits set behind its prefix: write {found}")
    return str(found)


def _add(socket: Any, body: dict[str, Any], json: bool) -> None:
    route = Client(socket).post("/v1/routes", body)
    if json:
        screen.show_json(route)
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
            ", ".join(route["servers"]) or "-",
            route["id"],
            route["comment"],
        )
        for route in routes
    ]
    example = _EXAMPLES.get(kind, _EXAMPLES["ip"])
    nothing = f"There are no such routes; add one:  {example} --tunnel NAME"
    screen.show_table(("DESTINATION", "TUNNEL", "VNET", "CREATED", "SERVERS", "ID", "COMMENT"), rows, nothing)


def _delete(socket: Any, kind: str, which: str, tunnel: str, vnet: str, json: bool) -> None:
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
    if json:
        screen.show_json(route)
    screen.remark(f"{route['value']} leads through tunnel {route['tunnel']['name']} no more.")


def _form(kind: str, text: str) -> str:
    if kind != "ip":
        return text.lower().removesuffix(".")
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        return text
