"""warren tunnel: named ways into private networks."""

from __future__ import annotations

import base64
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from warren.edge.admin import Administrator, KnownTunnel, NewTunnel, check_name
from warren.edge.client import Client
from warren.edge.commands import options, screen
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.files import write_private

BOTH_HOLD = 24 * 3600
"""Seconds for which a tunnel's key from before a rotation holds beside the new one."""

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
    json: options.Json = False,
) -> None:
    """Make a tunnel and its token.

    The token is the only copy of the tunnel's key: the edge never sees it. Bring it to a host in the private network
    and run `warren connector run --token-file FILE` there; run it on a second host too, and one may fail.
    """
    target = _target(check_name(name, "tunnel"), token_file, print_token)
    admin, client = options.administrator(admin_dir), Client(socket)
    options.same_network(client, admin)
    tunnel = admin.new_tunnel(name)
    with ExitStack() as undo:
        _write(tunnel, target, undo)
        body = {"id": tunnel.id, "name": name, **_said(tunnel.authority, tunnel.statement, tunnel.revision)}
        made = client.post("/v1/tunnels", body)
        undo.pop_all()
    if _token_shown(made, tunnel, target, json=json) or target is None:
        return
    screen.remark(f"Tunnel {name} ({tunnel.id}) was made; its token is in {target}, and nowhere else.")
    screen.remark(f"Next, on a host in the private network:  warren connector run --token-file {target.name}")
    screen.remark(f"And what lies behind it:                 warren route ip add 10.10.0.0/16 --tunnel {name}")


@app.command(
    epilog="Examples:  `warren tunnel rotate office`   ·   `warren tunnel rotate office --finish`",
)
def rotate(
    which: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the tunnel.")],
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="Where the new token goes (0600; - prints it). [NAME-REVISION.token]"
        ),
    ] = None,
    print_token: Annotated[bool, typer.Option("--print-token", help="Print the token instead of writing it.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="End the key of before now, not after 24 hours.")] = False,
    socket: options.Socket = options.SOCKET,
    admin_dir: options.AdminDir = options.ADMIN,
    json: options.Json = False,
) -> None:
    """Give a tunnel another key, and a new token, while its connectors run.

    The old token goes on working for 24 hours, or until `--finish`. Put the new one in the place of each connector's
    token file and send the connector SIGHUP: it takes the new key, and no flow ends. `warren tunnel info NAME` shows
    which connectors have it.
    """
    admin, client = options.administrator(admin_dir), Client(socket)
    options.same_network(client, admin)
    shown = client.get(f"/v1/tunnels/{quote(which, safe='')}")
    if finish:
        if token_file is not None or print_token:
            raise ConfigError("--finish makes no token: leave --token-file and --print-token out")
        _finish(admin, client, shown, json=json)
        return
    if shown["until"]:
        raise ConfigError(
            f"the key of before the last rotation holds until {screen.moment(shown['until'])}: "
            f"`warren tunnel rotate {shown['name']} --finish` ends it now"
        )
    until = int(time.time()) + BOTH_HOLD
    tunnel = admin.rotate(_known(shown), until)
    target = _target(f"{check_name(shown['name'], 'tunnel')}-{tunnel.revision}", token_file, print_token)
    with ExitStack() as undo:
        _write(tunnel, target, undo)
        changed = client.patch("/v1/tunnels", tunnel.id, _said(tunnel.authority, tunnel.statement, tunnel.revision))
        undo.pop_all()
    admin.remember(tunnel.id, tunnel.revision)
    if _token_shown(changed, tunnel, target, json=json) or target is None:
        return
    screen.remark(f"Tunnel {tunnel.name} ({tunnel.id}) has a new key; its token is in {target}, and nowhere else.")
    ends = f"holds until {screen.moment(changed['until'])}" if changed["until"] else "holds no longer"
    screen.remark(f"The key of before {ends}. Next, on each connector's host: replace the token file, send SIGHUP.")
    screen.remark(f"Then:  warren tunnel info {tunnel.name}  and  warren tunnel rotate {tunnel.name} --finish")


def _finish(admin: Administrator, client: Client, shown: dict[str, Any], *, json: bool) -> None:
    if not shown["until"]:
        raise ConfigError(f"tunnel {shown['name']} has one key only: there is nothing to finish")
    known = _known(shown)
    statement, revision = admin.finish(known)
    changed = client.patch("/v1/tunnels", known.id, _said(known.authority, statement, revision))
    admin.remember(known.id, revision)
    if json:
        screen.show_json(changed)
    screen.remark(f"The key of before is worth nothing now; connectors of {known.name} that have it are turned away.")


@app.command(epilog="Example:  `warren tunnel info office`")
def info(
    which: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the tunnel.")],
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Show one tunnel: its state, its connectors, and which key each of them has.

    inactive: no connector has ever been here; healthy: all that should be are; degraded: some are missing; down: none.
    """
    tunnel = Client(socket).get(f"/v1/tunnels/{quote(which, safe='')}")
    if json:
        screen.show_json(tunnel)
        return
    pairs: list[tuple[str, object]] = [
        ("name", tunnel["name"]),
        ("id", tunnel["id"]),
        ("state", tunnel["status"]),
        ("created", screen.moment(tunnel["created"])),
        ("key", f"{tunnel['key'][:16]}, revision {tunnel['revision']}"),
    ]
    if tunnel["until"]:
        pairs.append(("key before", f"{tunnel['former'][:16]}, until {screen.moment(tunnel['until'])}"))
    screen.show_pairs(pairs)
    typer.echo("")
    rows = [
        (
            one["host"] or "-",
            one["boot"][:8],
            "draining" if one["draining"] else "running",
            one["flows"],
            screen.moment(one["since"]),
            one["program"] or "-",
            f"{one['key'][:16]}{' (before)' if one['key'] == tunnel['former'] else ''}",
            one["revision"],
        )
        for one in tunnel["connectors"]
    ]
    columns = ("HOST", "BOOT", "STATE", "FLOWS", "SINCE", "PROGRAM", "KEY", "REVISION")
    screen.show_table(columns, rows, "No connector is here; run one:  warren connector run --token-file FILE")


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
    json: options.Json = False,
) -> None:
    """Delete a tunnel; its connectors are turned away."""
    tunnel = Client(socket).delete("/v1/tunnels", which, "?force=true" if force else "")
    if json:
        screen.show_json(tunnel)
    screen.remark(f"Tunnel {tunnel['name']} ({tunnel['id']}) was deleted; its token is worth nothing now.")


def _known(shown: dict[str, Any]) -> KnownTunnel:
    """What the edge shows, for the administrator's keys to verify."""
    authority, statement = (base64.b64decode(shown[field]) for field in ("authority", "statement"))
    return KnownTunnel(shown["id"], shown["name"], authority, statement)


def _said(authority: bytes, statement: bytes, revision: int) -> dict[str, Any]:
    return {
        "authority": base64.b64encode(authority).decode(),
        "statement": base64.b64encode(statement).decode(),
        "revision": revision,
    }


def _write(tunnel: NewTunnel, target: Path | None, undo: ExitStack) -> None:
    """Writes the token before the edge hears of it: a key that nobody has would be worse than a file too many."""
    if target is not None:
        write_private(target, f"{tunnel.token}\n".encode())
        undo.callback(target.unlink, missing_ok=True)


def _token_shown(made: dict[str, Any], tunnel: NewTunnel, target: Path | None, *, json: bool) -> bool:
    """Prints the token, or the whole answer as JSON, if that is wanted; whether it was JSON."""
    where = {"token": str(tunnel.token)} if target is None else {"token_file": str(target)}
    if json:
        screen.show_json({**made, **where})
    elif target is None:
        typer.echo(str(tunnel.token))
    return json


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
