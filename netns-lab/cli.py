"""The `lab` command: up, exec, shell, status, down."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from warren.lab.host import environment
from warren.lab.lab import Lab
from warren.lab.services import start_services
from warren.lab.state import LabError, LabState, all_labs
from warren.lab.topologies import TOPOLOGIES

app = typer.Typer(
    name="lab",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="A small internet on this machine, as root: a laptop at home, an edge, an office with its servers. "
    "Every host is a network, mount, UTS, IPC and PID namespace; nothing outside of them is changed.\n\n"
    "    lab up --services\n\n    lab exec connector -- curl http://payroll.internal/\n\n    lab down",
)
NameOption = Annotated[str, typer.Option("--name", "-n", help="Which lab; several can be up at once.")]
HostArgument = Annotated[str, typer.Argument(help="Name of a host, as `lab status` shows them.")]
DEFAULT_NAME = "lab"


@app.command()
def up(
    name: NameOption = DEFAULT_NAME,
    topology: Annotated[str, typer.Option(help=f"One of: {', '.join(TOPOLOGIES)}.")] = "office",
    services: Annotated[bool, typer.Option("--services", help="Start the servers of the office, too.")] = False,
) -> None:
    """Bring a lab up. It stays until `lab down`."""
    if topology not in TOPOLOGIES:
        raise LabError(f"no topology {topology!r}: there is {', '.join(TOPOLOGIES)}")
    began = time.monotonic()
    lab = Lab(TOPOLOGIES[topology], name=name)
    lab.up()
    try:
        if services:
            start_services(lab)
        lab.release()
    except BaseException:
        lab.down()
        raise
    Console().print(f"lab {name} is up: {len(lab.hosts)} hosts in {time.monotonic() - began:.1f} s")


@app.command("exec")
def execute(
    host: HostArgument,
    command: Annotated[list[str], typer.Argument(help="After `--`: the program and its arguments.")],
    name: NameOption = DEFAULT_NAME,
) -> None:
    """Run a program in a host; its exit code is ours.    lab exec laptop -- ping -c1 203.0.113.10"""
    _become(name, host, command)


@app.command()
def shell(host: HostArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Open a shell in a host."""
    _become(name, host, ["bash", "--norc", "-i"], {"PS1": f"[{name}] \\h:\\w\\$ "})


@app.command()
def status(name: Annotated[str | None, typer.Option("--name", "-n", help="Only this lab.")] = None) -> None:
    """Which labs are up, with their hosts."""
    labs = all_labs() if name is None else [LabState(name)]
    console = Console()
    if not labs:
        console.print("no lab is up")
    for state in labs:
        lab = Lab.attach(state.name) if name is not None or not state.is_stale() else None
        console.print(f"lab {state.name}: broken, `lab down --name {state.name}`" if lab is None else _hosts(lab))


@app.command()
def down(
    name: NameOption = DEFAULT_NAME,
    all: Annotated[bool, typer.Option("--all", help="Every lab of this machine.")] = False,
) -> None:
    """Take a lab down: every process in it ends, and nothing of it stays. Good for a broken one, too."""
    for lab in all_labs() if all else [LabState(name)]:
        if not lab.exists():
            raise LabError(f"no lab {name!r} is up")
        Lab(name=lab.name).down()
        Console().print(f"lab {lab.name} is down")


def _hosts(lab: Lab) -> Table:
    table = Table("host", "first pid", "addresses", title=f"lab {lab.name} ({lab.topology.name})", title_justify="left")
    for host in lab.hosts.values():
        addresses = [*host.spec.loopback, *(card.address for card in host.spec.interfaces)]
        table.add_row(host.name, str(host.pid), ", ".join(addresses))
    return table


def _become(name: str, host: str, command: list[str], env: dict[str, str] | None = None) -> None:
    lab = Lab.attach(name)
    if host not in lab.hosts:
        raise LabError(f"no host {host!r} in lab {name!r}: there is {', '.join(lab.hosts)}")
    argv = lab[host].argv(command)
    sys.stdout.flush()
    os.execvpe(argv[0], argv, environment(env))


def main() -> None:
    try:
        app(prog_name="lab")
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1)
