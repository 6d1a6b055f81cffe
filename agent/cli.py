"""`warren agent`: brings this device in, captures its traffic for private networks, says what it does."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from warren.fabric.core.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Reach private networks from this device.")

State = Annotated[
    Path, typer.Option("--state-dir", readable=False, help="Where the device's key and the journal live.")
]
Socket = Annotated[Path, typer.Option("--socket", readable=False, help="The agent's control socket.")]
STATE = Path("/var/lib/warren/agent")
SOCKET = Path("/run/warren/agent.sock")


@app.callback()
def agent() -> None:
    """Reach private networks from this device: enrol it once, then bring the agent up.

    Example: warren agent enrol --key-file laptop.key && sudo warren agent up
    """


@app.command()
def enrol(
    key_file: Annotated[str, typer.Option(help="File with the enrolment key; - reads it from standard input.")] = "-",
    state: State = STATE,
    force: Annotated[bool, typer.Option(help="Enrol anew although the device is enrolled.")] = False,
    engine: Annotated[str | None, typer.Option(help="QUIC engine; the best one installed by default.")] = None,
) -> None:
    """Bring this device in, with the enrolment key that `warren device add NAME` printed (one use, one hour).

    The device's own key is made here and stays here. The enrolment key is a secret: it is read from a file or from
    standard input, never from an argument.
    """
    from warren.agent.enrol import enrol as enrol_device
    from warren.fabric.engines import engine as engine_of

    if key_file == "-":
        if sys.stdin.isatty():
            typer.echo("Paste the enrolment key, then press Enter:", err=True)
        text = sys.stdin.readline()
    else:
        try:
            text = Path(key_file).read_text()
        except OSError as error:
            raise ConfigError(f"the key file {key_file} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{key_file} is no key file: it is not text") from None
    device = asyncio.run(enrol_device(engine_of(engine), text.strip(), state, force=force))
    typer.echo(f"enrolled as {device.name}. Next: warren agent up")


@app.command()
def up(
    state: State = STATE,
    socket: Socket = SOCKET,
    interface: Annotated[str, typer.Option(help="Name of the TUN device.")] = "warren0",
    include: Annotated[
        list[str] | None,
        typer.Option(help="Capture only this CIDR of what the edge routes (split tunnel). Repeat it for more."),
    ] = None,
    dns: Annotated[bool, typer.Option(help="Point the system's resolver at the agent.")] = True,
    engine: Annotated[str | None, typer.Option(help="QUIC engine; the best one installed by default.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the agent until Ctrl-C, SIGTERM or `warren agent down`. Needs root.

    Routes, addresses and the resolver setting are put back when it ends, also when it is killed.
    """
    import ipaddress

    from warren.agent.app import run
    from warren.agent.config import AgentConfig
    from warren.fabric.aio.logs import set_up

    set_up(log_level)
    for cidr in include or []:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise ConfigError(f"--include {cidr}: {error}; use a CIDR such as 10.10.0.0/16") from None
    run(AgentConfig(state, socket, interface, tuple(include or ()), dns, engine))


@app.command()
def down(socket: Socket = SOCKET, wait: Annotated[float, typer.Option(help="Seconds to wait for it.")] = 10.0) -> None:
    """Stop the running agent, and put back what it changed."""
    from warren.agent.control import ask

    ask(socket, {"do": "down"})
    until = time.monotonic() + wait
    while socket.exists() and time.monotonic() < until:
        time.sleep(0.05)
    if socket.exists():
        raise ConfigError(f"the agent has not stopped after {wait:.0f} s; see its log")
    typer.echo("the agent has stopped")


@app.command()
def status(
    socket: Socket = SOCKET,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show edges, routes, names, tunnels and flows; and what was refused, with its reason."""
    from warren.agent.control import ask

    said = ask(socket, {"do": "status"})
    if as_json:
        typer.echo(json.dumps(said, indent=2))
        return
    from rich.console import Console

    from warren.agent.status import screen

    Console().print(screen(said))
