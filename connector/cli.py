"""`warren connector`: runs a replica of a tunnel inside the private network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warren.fabric.daemon import flags, verbs

if TYPE_CHECKING:
    from warren.connector.config import ConnectorConfig
    from warren.fabric.daemon.service import Unit

app = typer.Typer(
    no_args_is_help=True, help="Run a connector inside a private network: it dials out and opens no port."
)


def settings(config: Path | None, given: Mapping[str, object]) -> ConnectorConfig:
    """The file and the flags. Raises ConfigError."""
    from warren.connector.config import ConnectorConfig
    from warren.fabric.daemon.settings import read

    return read(ConnectorConfig, "connector", config, given)


@app.callback()
def connector() -> None:
    """Run a connector inside a private network: it dials out and opens no port."""


@app.command()
@flags.of_every_daemon
def run(
    token_file: Annotated[
        str | None,
        typer.Option(help="File of mode 0600 with the tunnel's token; - reads it from standard input."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="What may be opened at most, whatever the edge grants: CIDR or CIDR:PORTS, as 10.10.0.0/16:22,443. "
            "Repeat it for more. Without it: everything but loopback, link-local and metadata addresses."
        ),
    ] = None,
    drain: Annotated[float | None, typer.Option(help="Seconds that open flows get to end after SIGTERM. [30]")] = None,
    config: flags.Config = None,
    *,
    common: Mapping[str, object],
) -> None:
    """Run until SIGTERM.

    The token is what `warren tunnel create NAME` made at the edge. It is a secret: pass it in a file or on standard
    input, never as an argument.

    Example: warren connector run --token-file /etc/warren/office.token --allow 10.10.0.0/16
    """
    from warren.connector.app import run as run_connector
    from warren.fabric.aio.logs import set_up

    given = {
        "token_file": token_file,
        "allow": allow or None,
        "drain": drain,
    }
    said = settings(config, {**given, **common})
    set_up(said.log.level, said.log.format, said.log.file)
    run_connector(said, said.read_token(token_file), lambda: said.reread_token(token_file))


def _unit(config: ConnectorConfig, file: Path | None) -> Unit:
    from warren.connector.service import unit

    return unit(config, file)


verbs.add(app, verbs.Daemon("connector", settings, _unit, lambda config: {}), takes_token=True)
