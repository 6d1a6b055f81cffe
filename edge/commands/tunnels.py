"""warren tunnel: named ways into private networks."""

from __future__ import annotations

import base64
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from warren.edge.admin import check_name
from warren.edge.client import Client
from warren.edge.commands import options, screen
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.files import write_private

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Tunnels: named ways into private networks, each with a token that runs its connectors.",
)


@app.command(
    epilog="Examples:  `warren tunnel create office`   ·   "
    "`warren tunnel create office --token-file -  | ssh site 'umask 77; cat > office.token'`"
)
def create(
    name: Annotated[str, typer.Argument(help="A name of your choice, as in office.")],
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Where the token goes (0600; - prints it). [NAME.token]"),
    ] = None,
    print_token: Annotated[bool, typer.Option("--print-token", help="Print the token instead of writing it.")] = False,
    socket: options.Socket = options.SOCKET,
    admin_dir: options.AdminDir = options.ADMIN,
) -> None:
    """Make a tunnel and its token.

    The token is the only copy of the tunnel's key: the edge never sees it. Bring it to a host in the private network
    and run `warren connector run --token-file FILE` there; run it on a second host too, and one may fail.
    """
    target = _target(check_name(name, "tunnel"), token_file, print_token)
    admin, client = options.administrator(admin_dir), Client(socket)
    options.same_network(client, admin)
    tunnel = admin.new_tunnel(name)
    body = {
        "id": tunnel.id,
        "name": name,
        "authority": base64.b64encode(tunnel.authority).decode(),
        "statement": base64.b64encode(tunnel.statement).decode(),
        "revision": tunnel.revision,
    }
    with ExitStack() as undo:
        if target is not None:
            write_private(target, f"{tunnel.token}\n".encode())
            undo.callback(target.unlink, missing_ok=True)
        client.post("/v1/tunnels", body)
        undo.pop_all()
    if target is None:
        typer.echo(str(tunnel.token))
        return
    screen.remark(f"Tunnel {name} ({tunnel.id}) was made; its token is in {target}, and nowhere else.")
    screen.remark(f"Next, on a host in the private network:  warren connector run --token-file {target.name}")
    screen.remark(f"And what lies behind it:                 warren route ip add 10.10.0.0/16 --tunnel {name}")


@app.command("list", epilog="Example:  `warren tunnel list --json | jq '.[].status'`")
def list_(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show the tunnels and their connectors.

    inactive: no connector has ever been here; healthy: all that should be are; degraded: some are missing; down: none.
    """
    tunnels = Client(socket).get("/v1/tunnels")
    if json:
        screen.show_json(tunnels)
        return
    rows = [
        (
            tunnel["name"],
            tunnel["status"],
            ", ".join(connector["host"] or connector["boot"][:8] for connector in tunnel["connectors"]) or "-",
            sum(connector["flows"] for connector in tunnel["connectors"]),
            screen.moment(tunnel["created"]),
            tunnel["id"],
        )
        for tunnel in tunnels
    ]
    nothing = "There are no tunnels; make one:  warren tunnel create NAME"
    screen.show_table(("NAME", "STATUS", "CONNECTORS", "FLOWS", "CREATED", "ID"), rows, nothing)


@app.command(epilog="Example:  `warren tunnel delete office`")
def delete(
    which: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the tunnel.")],
    force: Annotated[bool, typer.Option("--force", help="Delete the routes that lead to it, too.")] = False,
    socket: options.Socket = options.SOCKET,
) -> None:
    """Delete a tunnel; its connectors are turned away."""
    tunnel = Client(socket).delete("/v1/tunnels", which, "?force=true" if force else "")
    screen.remark(f"Tunnel {tunnel['name']} ({tunnel['id']}) was deleted; its token is worth nothing now.")


def _target(name: str, token_file: Path | None, print_token: bool) -> Path | None:
    """The file for the token, which is not there yet; None: print it."""
    if print_token and token_file is not None:
        raise ConfigError("--print-token and --token-file exclude each other: choose one")
    if print_token or token_file == Path("-"):
        return None
    target = Path(f"{name}.token") if token_file is None else token_file
    if target.exists():
        raise ConfigError(f"{target} is there already: name another --token-file, or remove it")
    return target
