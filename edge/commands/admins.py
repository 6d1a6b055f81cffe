"""warren admin: the administrator's keys, which no edge needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from warren.edge import keycopy
from warren.edge.commands import options, screen
from warren.fabric.core.errors import ConfigError

PASSPHRASE_LIMIT = 1024
"""Characters of the longest passphrase that is read."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The administrator's keys: what `warren edge init` made, and a copy of it.",
)
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="The passphrase is its first line; - for standard input. [asked for]",
        readable=False,
    ),
]


@app.command(epilog="Example:  `warren admin info`")
def info(admin_dir: options.AdminDir = options.ADMIN, json: options.Json = False) -> None:
    """Show which network the keys are of, and its edges."""
    administrator = options.administrator(admin_dir)
    edges = [str(edge) for edge in administrator.edges.edges]
    if json:
        screen.show_json(
            {"directory": str(administrator.directory), "network": administrator.fingerprint, "edges": edges}
        )
        return
    typer.echo(f"directory {administrator.directory}")
    typer.echo(f"network   {administrator.fingerprint}")
    typer.echo(f"edges     {', '.join(edges)}")


@app.command(epilog="Example:  `warren admin export /media/stick/warren-admin.sealed`")
def export(
    file: Annotated[Path, typer.Argument(help="A new file, made with mode 0600.")],
    admin_dir: options.AdminDir = options.ADMIN,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write a copy of the administrator's keys, encrypted with a passphrase.

    Without these keys no tunnel, device or edge can be added to the network any more. Keep the copy and its passphrase
    in two places, neither of them the edge.
    """
    directory = options.administrator(admin_dir).directory
    network = keycopy.export(directory, file, _passphrase(passphrase_file, twice=True))
    screen.remark(f"The keys of network {network[:16]} were written to {file}.")
    screen.remark(f"Next:  try the copy with  warren admin import {file} --admin-dir ./try   and remove ./try again")


@app.command("import", epilog="Example:  `warren admin import /media/stick/warren-admin.sealed`")
def bring_back(
    file: Annotated[Path, typer.Argument(help="What `warren admin export` wrote.")],
    admin_dir: options.AdminDir = options.ADMIN,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Put the administrator's keys back, into a directory that holds none."""
    directory = admin_dir.expanduser()
    network = keycopy.bring_back(file, directory, _passphrase(passphrase_file, twice=False))
    screen.remark(f"The keys of network {network[:16]} are in {directory}.")


def _passphrase(file: Path | None, *, twice: bool) -> str:
    if file is None:
        if not sys.stdin.isatty():
            raise ConfigError("there is no terminal to ask for the passphrase: give --passphrase-file FILE, or -")
        return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice))
    if str(file) == "-":
        return sys.stdin.readline(PASSPHRASE_LIMIT).rstrip("\r\n")
    try:
        with file.open() as opened:
            return opened.readline(PASSPHRASE_LIMIT).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} can't be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
