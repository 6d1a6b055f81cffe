"""`warren agent`: brings this device in, captures its traffic for private networks, says what it does."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon import flags, verbs
from warren.fabric.daemon.diag import Part, as_json

if TYPE_CHECKING:
    from warren.agent.config import AgentConfig
    from warren.fabric.daemon.service import Unit

app = typer.Typer(no_args_is_help=True, help="Reach private networks from this device.")
vnet = typer.Typer(no_args_is_help=True, help="The virtual network that this device is in.")
app.add_typer(vnet, name="vnet")

State = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        readable=False,
        help="Where the device's key and the journal live. [/var/lib/warren/agent]",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Capture only this CIDR of what the edge routes (split tunnel). Repeat it for more."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="Leave this CIDR alone whatever the edge routes; stronger than --include. Repeat it."),
]
Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", readable=False, help="The agent's control socket. [/run/warren/agent.sock]"
    ),
]


def settings(config: Path | None, given: Mapping[str, object]) -> AgentConfig:
    """The file and the flags. Raises ConfigError."""
    from warren.agent.config import AgentConfig
    from warren.fabric.daemon.settings import read

    return read(AgentConfig, "agent", config, given)


@app.callback()
def agent() -> None:
    """Reach private networks from this device: enrol it once, then bring the agent up.

    Example: warren agent enrol --key-file laptop.key && sudo warren agent up
    """


@app.command()
def enrol(
    key_file: Annotated[str, typer.Option(help="File with the enrolment key; - reads it from standard input.")] = "-",
    state: State = None,
    force: Annotated[bool, typer.Option(help="Enrol anew although the device is enrolled.")] = False,
    config: flags.Config = None,
    engine: flags.Engine = None,
    as_json: flags.Json = False,
) -> None:
    """Bring this device in, with the enrolment key that `warren device add NAME` printed (one use, one hour).

    The device's own key is made here and stays here. The enrolment key is a secret: it is read from a file or from
    standard input, never from an argument.

    Example: warren agent enrol --key-file laptop.key
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
    said = settings(config, {"state_dir": state, "engine": engine})
    device = asyncio.run(enrol_device(engine_of(said.engine), text.strip(), said.state, force=force))
    if as_json:
        typer.echo(json.dumps({"device": device.id, "name": device.name}, indent=2))
        return
    typer.echo(f"enrolled as {device.name}. Next: warren agent up")


@app.command()
@flags.of_every_daemon
def up(
    state: State = None,
    socket: Socket = None,
    interface: Annotated[str | None, typer.Option(help="Name of the TUN device. [warren0]")] = None,
    include: Include = None,
    exclude: Exclude = None,
    dns: Annotated[bool | None, typer.Option(help="Point the system's resolver at the agent. [yes]")] = None,
    dns_scope: Annotated[
        str | None,
        typer.Option(help="What the edge is asked about: names of routes (routed), or everything. [routed]"),
    ] = None,
    dns_fallback: Annotated[
        bool | None,
        typer.Option(help="With scope everything: ask the resolvers of before while no edge answers. [yes]"),
    ] = None,
    dns_local: Annotated[
        list[str] | None,
        typer.Option(help="A domain that only the resolvers of before are asked about. Repeat it for more."),
    ] = None,
    config: flags.Config = None,
    *,
    common: Mapping[str, object],
) -> None:
    """Run the agent until Ctrl-C, SIGTERM or `warren agent down`. Needs root.

    Routes, addresses and the resolver setting are put back when it ends, also when it is killed.

    Example: sudo warren agent up --exclude 10.10.99.0/24
    """
    from warren.agent.app import run
    from warren.fabric.aio.logs import set_up

    given = {
        "state_dir": state,
        "socket": socket,
        "interface": interface,
        "include": include or None,
        "exclude": exclude or None,
        "dns.system": dns,
        "dns.scope": dns_scope,
        "dns.fallback": dns_fallback,
        "dns.local": dns_local or None,
    }
    said = settings(config, {**given, **common})
    set_up(said.log.level, said.log.format, said.log.file)
    run(said)


@app.command()
def down(
    socket: Socket = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for it.")] = 10.0,
    config: flags.Config = None,
) -> None:
    """Stop the running agent, and put back what it changed.

    Example: sudo warren agent down
    """
    from warren.agent.control import ask

    path = settings(config, {"socket": socket}).socket
    ask(path, {"do": "down"})
    until = time.monotonic() + wait
    while path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    if path.exists():
        raise ConfigError(f"the agent has not stopped after {wait:.0f} s; see its log")
    typer.echo("the agent has stopped")


@app.command()
def status(
    socket: Socket = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep the screen up to date until Ctrl-C; with --json, a line a time.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 1.0,
    config: flags.Config = None,
) -> None:
    """Show edges, routes, names, tunnels and flows; and what was refused, with its reason.

    Example: warren agent status --watch
    """
    from warren.agent.control import ask
    from warren.agent.watch import show
    from warren.agent.watch import watch as keep_watching

    path = settings(config, {"socket": socket}).socket
    if watch:
        keep_watching(path, interval, as_json=as_json)
        return
    said = ask(path, {"do": "status"})
    if as_json:
        typer.echo(json.dumps(said, indent=2))
        return
    show(said)


@app.command()
def metrics(socket: Socket = None, config: flags.Config = None) -> None:
    """Print the running agent's metrics, in Prometheus's text format.

    To have them scraped over HTTP, run the agent with --metrics ADDRESS:PORT.

    Example: warren agent metrics | grep flows
    """
    from warren.agent.control import ask

    typer.echo(ask(settings(config, {"socket": socket}).socket, {"do": "metrics"})["text"], nl=False)


@app.command()
def unenrol(state: State = None, socket: Socket = None, config: flags.Config = None, yes: flags.Yes = False) -> None:
    """Forget the enrolment: remove this device's key and everything else of it from the state directory.

    The edge still knows the device until `warren device delete NAME` there. The agent may not be running.

    Example: sudo warren agent unenrol --yes
    """
    from warren.agent.unenrol import found, unenrol

    said = settings(config, {"state_dir": state, "socket": socket})
    there = found(said.state)
    if not there:
        raise ConfigError(f"this device is not enrolled: there is nothing of it in {said.state}")
    if not yes:
        typer.echo(f"To be removed from {said.state}: {', '.join(path.name for path in there)}", err=True)
        typer.confirm("This device will have to enrol anew, with a new key. Go on?", abort=True, err=True)
    name = unenrol(said.state, said.socket)
    typer.echo(f"{name} is not enrolled any more. At the edge:  warren device delete {name}")


@vnet.command("list")
def list_networks(socket: Socket = None, as_json: flags.Json = False, config: flags.Config = None) -> None:
    """Show the virtual networks that this device may be in; the one that it is in has a star.

    Example: warren agent vnet list
    """
    said = _networks(socket, config)
    if as_json:
        typer.echo(json.dumps(said, indent=2))
        return
    for name in said["choices"]:
        typer.echo(f"{'*' if name == said['vnet'] else ' '} {name}")


@vnet.command("show")
def show_network(socket: Socket = None, as_json: flags.Json = False, config: flags.Config = None) -> None:
    """Show the virtual network that this device is in.

    Example: warren agent vnet show --json
    """
    said = _networks(socket, config)
    typer.echo(json.dumps(said, indent=2) if as_json else said["vnet"])


@vnet.command("use")
def use_network(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of those that `warren agent vnet list` shows.")],
    socket: Socket = None,
    as_json: flags.Json = False,
    config: flags.Config = None,
) -> None:
    """Put this device in another virtual network: its routes, its names, and every new flow.

    The edge remembers it. Open flows go on in the network where they began, as long as their address is routed in the
    new one too; the others are reset.

    Example: warren agent vnet use plant
    """
    said = _networks(socket, config, use=name)
    typer.echo(json.dumps(said, indent=2) if as_json else f"this device is in virtual network {said['vnet']}")


def _networks(socket: Path | None, config: Path | None, **more: str) -> dict[str, Any]:
    from warren.agent.control import ask

    return ask(settings(config, {"socket": socket}).socket, {"do": "vnet", **more})


def _unit(config: AgentConfig, file: Path | None) -> Unit:
    from warren.agent.service import unit

    return unit(config, file)


def _parts(config: AgentConfig) -> dict[str, Part]:
    from warren.agent.control import ask

    return {
        "status.json": lambda: as_json(ask(config.socket, {"do": "status"})),
        "host.journal": lambda: (config.state / "host.journal").read_text(),
    }


verbs.add(app, verbs.Daemon("agent", settings, _unit, _parts))
