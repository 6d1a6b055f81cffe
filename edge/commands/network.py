"""warren edge add, join, list, remove: several edges of one network, which share a store in PostgreSQL."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any

import typer

from warren.edge import admin, archive
from warren.edge.admin import Administrator
from warren.edge.client import Client
from warren.edge.commands import options, screen
from warren.edge.places import PORT


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")],
    public: Annotated[
        str, typer.Option("--public", metavar="HOST[:PORT]", help="Where devices and connectors will reach it.")
    ],
    file: Annotated[
        Path, typer.Option("--file", metavar="FILE", help="A new file for its credentials, made with mode 0600.")
    ],
    admin_dir: options.AdminDir = options.ADMIN,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Make another edge: a file of credentials for its host, and a new list of edges for everybody.

    All edges share one store in PostgreSQL. Nodes that run learn of the new edge by themselves.
    """
    client, administrator = _both(socket, admin_dir)
    host, port = admin.parse_public(public, PORT)
    made = administrator.new_edge(name, host, port)
    archive.bundle(file, made.credentials)
    try:
        _publish(client, administrator, made.signed)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    if json:
        screen.show_json({"id": made.edge.id, "name": name, "address": str(made.edge), "file": str(file)})
    screen.remark(f"Edge {name} ({made.edge.id}) at {made.edge}. Open that port in its firewall, UDP and TCP.")
    screen.remark(f"Its keys are in {file}: carry it there over a safe way, and remove it here. Then, on its host:")
    screen.remark(f"       warren edge join {file.name} && warren edge run --store URL   (the same store as here)")


def join(
    file: Annotated[Path, typer.Argument(help="What `warren edge add` wrote.")],
    state_dir: options.StateDir = options.STATE,
    force: Annotated[bool, typer.Option("--force", help="Replace the edge that is in the state directory.")] = False,
    json: options.Json = False,
) -> None:
    """Become the edge that `warren edge add` has made. Remove the file afterwards."""
    credentials = archive.join(file, state_dir, force=force)
    if json:
        joined = credentials.edge
        screen.show_json({"id": joined.id, "name": joined.name, "address": str(joined), "state": str(state_dir)})
    screen.remark(f"This is edge {credentials.edge.name} ({credentials.edge.id}) now, with its state in {state_dir}.")
    screen.remark("Next:  warren edge run   with the other edges' store, by --store or in /etc/warren/edge.yaml")


def show(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show the network's edges."""
    answer = Client(socket).get("/v1/edges")
    if json:
        screen.show_json(answer)
        return
    rows = [_row(edge) for edge in answer["edges"]]
    screen.show_table(("NAME", "ID", "ADDRESS", ""), rows, "There is no list of edges in the store yet.")


def remove(
    which: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.")],
    admin_dir: options.AdminDir = options.ADMIN,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Take an edge off the network's list. Nodes leave it, and what it signs is worth nothing any more.

    Stop it afterwards, and remove its state directory. Run this at another edge.
    """
    client, administrator = _both(socket, admin_dir)
    gone, signed = administrator.list_without(which)
    _publish(client, administrator, signed)
    if json:
        screen.show_json({"id": gone.id, "name": gone.name, "address": str(gone)})
    screen.remark(f"Edge {gone.name} ({gone.id}) is off the list. Stop it, and remove its state directory.")


def _both(socket: Path, admin_dir: Path) -> tuple[Client, Administrator]:
    client, administrator = Client(socket), options.administrator(admin_dir)
    options.same_network(client, administrator)
    answer = client.get("/v1/edges")
    if answer["revision"] > administrator.edges.revision:  # another copy of the keys made it, or an answer was lost
        administrator.keep_edges(base64.b64decode(answer["signed"]))
    return client, administrator


def _publish(client: Client, administrator: Administrator, signed: bytes) -> None:
    """The administrator's copy first: whoever has a list that nobody else knows makes the next one from it."""
    before = administrator.signed_edges
    administrator.keep_edges(signed)
    try:
        client.post("/v1/edges", {"signed": base64.b64encode(signed).decode()})
    except BaseException:
        administrator.keep_edges(before)
        raise


def _row(edge: dict[str, Any]) -> tuple[str, str, str, str]:
    return edge["name"] or "-", edge["id"], edge["address"], "asked" if edge["own"] else ""
