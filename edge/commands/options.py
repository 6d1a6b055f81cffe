"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from warren.edge.admin import ADMIN_DIRECTORY, Administrator
from warren.edge.client import Client, EdgeError
from warren.edge.places import ADMIN_SOCKET, STATE_DIRECTORY

# `readable=False`: whether a path can be used is found out when it is used, by an error that says what to do.
Socket = Annotated[
    Path,
    typer.Option("--socket", metavar="PATH", envvar="WARREN_SOCKET", readable=False, help="The edge's admin socket."),
]
AdminDir = Annotated[
    Path,
    typer.Option(
        "--admin-dir",
        metavar="DIR",
        envvar="WARREN_ADMIN_DIR",
        readable=False,
        help="Where the administrator's keys are.",
    ),
]
StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        envvar="WARREN_STATE_DIR",
        readable=False,
        help="Where the edge keeps its state.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

SOCKET = ADMIN_SOCKET
ADMIN = ADMIN_DIRECTORY
STATE = STATE_DIRECTORY


def administrator(directory: Path) -> Administrator:
    """The administrator's keys in that directory, `~` expanded. Raises ConfigError."""
    return Administrator(directory.expanduser())


def same_network(client: Client, admin: Administrator) -> None:
    """Raises EdgeError if the edge is of another network than the keys: what they sign would be worth nothing there."""
    network = client.get("/v1/info").get("network")
    if network != admin.fingerprint:
        raise EdgeError(f"the edge belongs to another network than the keys in {admin.directory}: give --admin-dir")
