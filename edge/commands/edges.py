"""warren edge: make one, run it, look at it, keep a copy."""

from __future__ import annotations

import asyncio
import importlib
import socket as sockets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from warren.edge import admin, archive, state
from warren.edge.client import Client
from warren.edge.commands import network, options, screen
from warren.edge.config import EdgeConfig
from warren.edge.places import PORT
from warren.fabric.aio.logs import set_up
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon import flags, verbs
from warren.fabric.daemon.diag import Part, as_json
from warren.fabric.daemon.service import Unit
from warren.fabric.daemon.settings import read
from warren.fabric.identity import keys
from warren.fabric.identity.statements import Edge

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The edge: the public host that judges and switches, and can't read what passes.",
)
app.command("add", epilog="Example:  `warren edge add paris --public paris.example.net --file paris.edge`")(network.add)
app.command("join", epilog="Example:  `sudo warren edge join paris.edge`")(network.join)
app.command("list", epilog="Example:  `warren edge list --json`")(network.show)
app.command("remove", epilog="Example:  `warren edge remove paris`")(network.remove)

OwnStateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        envvar="WARREN_STATE_DIR",
        help="Where the edge keeps its state. [/var/lib/warren/edge]",
    ),
]
OwnSocket = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", envvar="WARREN_SOCKET", help="The edge's admin socket. [/run/warren/edge.sock]"
    ),
]

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="PostgreSQL instead of a file, without a password: postgresql+asyncpg://USER@HOST/DATABASE.",
    ),
]
StorePassword = Annotated[
    Path | None,
    typer.Option("--store-password-file", metavar="FILE", help="File of mode 0600 with the database's password."),
]


def settings(file: Path | None, given: Mapping[str, object]) -> EdgeConfig:
    """The file and the flags. Raises ConfigError."""
    return read(EdgeConfig, "edge", file, given)


@app.command(epilog="Example:  `sudo warren edge init --public edge.example.net`")
def init(
    public: Annotated[
        str,
        typer.Option("--public", metavar="HOST[:PORT]", help="Where devices and connectors reach this edge, over UDP."),
    ],
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="UDP port, if --public names none.")] = PORT,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What you call it. [this host's name]")] = "",
    state_dir: options.StateDir = options.STATE,
    admin_dir: options.AdminDir = options.ADMIN,
    store: Store = None,
    store_password_file: StorePassword = None,
    config: flags.Config = None,
    json: options.Json = False,
) -> None:
    """Make a network and its first edge.

    Two sets of keys are made. The edge's own stay in the state directory. The administrator's, above all the network
    key in which every device and connector trusts, go to the administrator's directory: an edge that is taken over
    can't invent a tunnel as long as they are not on its host, so move that directory to a safe place, and keep a copy.
    """
    host, number = admin.parse_public(public, port)
    edge = Edge(keys.new_id(), host, number, admin.check_name(name, "edge") if name else _own_name())
    admin_dir = admin_dir.expanduser()
    said = settings(config, {"store": store, "store_password_file": store_password_file})
    admin.create(admin_dir, state_dir, edge, _store_maker(said))
    if json:
        made = {
            "id": edge.id,
            "name": edge.name,
            "address": str(edge),
            "state": str(state_dir),
            "admin": str(admin_dir),
        }
        screen.show_json(made)
    screen.remark(f"Edge {edge.name} ({edge.id}) at {edge}. Open that port in the firewall, UDP and TCP.")
    screen.remark(f"  its state:                  {state_dir}")
    screen.remark(f"  the administrator's keys:   {admin_dir}   (keep a copy in a safe place)")
    if said.store:
        screen.remark(f"  its store:                  {said.store}   (as `store` in /etc/warren/edge.yaml, or --store)")
    screen.remark("Next:  warren edge run          then, in another terminal:")
    screen.remark("       warren tunnel create office")
    screen.remark("       warren route ip add 10.10.0.0/16 --tunnel office")
    screen.remark("       warren device add my-laptop")


@app.command(epilog="Example:  `warren edge run --listen-host ::`")
@flags.of_every_daemon
def run(
    state_dir: OwnStateDir = None,
    listen_host: Annotated[
        str | None,
        typer.Option("--listen-host", metavar="ADDRESS", help="IP address of the sockets. [::, IPv6 and IPv4]"),
    ] = None,
    listen_port: Annotated[
        int | None,
        typer.Option("--listen-port", metavar="PORT", help="UDP port; 0: the one that `init` was told. [0]"),
    ] = None,
    socket: OwnSocket = None,
    store: Store = None,
    store_password_file: StorePassword = None,
    config: flags.Config = None,
    *,
    common: Mapping[str, object],
) -> None:
    """Run the edge in the foreground, until SIGTERM or Ctrl-C."""
    given = {
        "state_dir": state_dir,
        "listen_host": listen_host,
        "listen_port": listen_port,
        "socket": socket,
        "store": store,
        "store_password_file": store_password_file,
    }
    said = settings(config, {**given, **common})
    set_up(said.log.level, said.log.format, said.log.file)
    if not (said.state_dir / state.KEY).exists():
        missing = f"there is no edge in {said.state_dir}: make one with `warren edge init`, or give --state-dir"
        raise ConfigError(missing)
    importlib.import_module("warren.edge.app").run(said)


@app.command(epilog="Example:  `warren edge info --json`")
def info(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show the network that the running edge belongs to."""
    answer = Client(socket).get("/v1/info")
    if json:
        screen.show_json(answer)
        return
    typer.echo(f"network   {screen.plain(answer['network'])}")
    typer.echo(f"edges     {screen.plain(', '.join(answer['edges']))}")
    typer.echo(f"store     {answer['store']}, epoch {answer['epoch']}, revision {answer['revision']}")


@app.command(epilog="Example:  `warren edge backup /root/edge-$(date +%F).tar`")
def backup(
    file: Annotated[Path, typer.Argument(help="A new file; it is made with mode 0600, for it holds the edge's keys.")],
    state_dir: options.StateDir = options.STATE,
    store: Store = None,
    config: flags.Config = None,
) -> None:
    """Write a copy of the edge: store, keys and certificates. The edge may be running.

    No key of the administrator is in it. A store in PostgreSQL is not in it either: `pg_dump` copies that.
    """
    said = settings(config, {"store": store})
    archive.backup(state_dir, file, elsewhere=bool(said.store))
    screen.remark(f"The edge in {state_dir} was copied to {file}. The administrator's keys are not in it.")
    if said.store:
        screen.remark("Its store is not in it: copy the database with pg_dump, and put it back with pg_restore.")


@app.command(epilog="Example:  `warren edge restore /root/edge-2026-11-21.tar`")
def restore(
    file: Annotated[Path, typer.Argument(help="What `warren edge backup` wrote.")],
    state_dir: options.StateDir = options.STATE,
    force: Annotated[bool, typer.Option("--force", help="Replace the edge that is in the state directory.")] = False,
    store: Store = None,
    store_password_file: StorePassword = None,
    config: flags.Config = None,
) -> None:
    """Put a backup back. The edge may not be running; a store in PostgreSQL is put back first, with pg_restore.

    The store begins a new epoch, so that nothing signed before is taken for newer than what it says now.
    """
    said = settings(config, {"store": store, "store_password_file": store_password_file})
    epoch = archive.restore(file, state_dir, force=force, config=said)
    screen.remark(f"The edge was restored into {state_dir}; its store has epoch {epoch}. Next:  warren edge run")


def _own_name() -> str:
    name = sockets.gethostname().partition(".")[0]
    try:
        return admin.check_name(name, "edge")
    except ConfigError:
        return "edge"


def _store_maker(said: EdgeConfig) -> Callable[[Path], None]:
    """Imported before anything is made: SQLAlchemy may be missing."""
    open_store = importlib.import_module("warren.edge.store.database").open_store

    async def make(path: Path) -> None:
        repository = await open_store(said.store or path, create=True, password_file=said.store_password_file)
        try:
            await repository.new_epoch(int(time.time() * 1000))
        finally:
            await repository.close()

    return lambda path: asyncio.run(make(path))


def _unit(config: EdgeConfig, file: Path | None) -> Unit:
    from warren.edge.service import unit

    return unit(config, file)


def _parts(config: EdgeConfig) -> dict[str, Part]:
    client = Client(config.admin_socket)

    def asked(what: str) -> Part:
        return lambda: as_json(client.get(f"/v1/{what}"))

    pages = {f"{what}.json": asked(what) for what in ("info", "tunnels", "routes", "devices")}
    return pages | {"dns-lists.json": asked("dns/lists")}


verbs.add(app, verbs.Daemon("edge", settings, _unit, _parts))
