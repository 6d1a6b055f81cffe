"""`warren connector`: runs a replica of a tunnel inside the private network."""

from __future__ import annotations

from typing import Annotated

import typer

from warren.fabric.core.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True, help="Run a connector inside a private network: it dials out and opens no port."
)


@app.callback()
def connector() -> None:
    """Run a connector inside a private network: it dials out and opens no port."""


@app.command()
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
    drain: Annotated[float, typer.Option(help="Seconds that open flows get to end after SIGTERM.")] = 30.0,
    engine: Annotated[str | None, typer.Option(help="QUIC engine; the best one installed by default.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run until SIGTERM.

    The token is what `warren tunnel create NAME` made at the edge. It is a secret: pass it in a file or on standard
    input, never as an argument.

    Example: warren connector run --token-file /etc/warren/office.token --allow 10.10.0.0/16
    """
    from warren.connector.app import run as run_connector
    from warren.connector.config import ConnectorConfig, credential_file, read_token
    from warren.connector.gate import Ceiling
    from warren.fabric.aio.logs import set_up

    set_up(log_level)
    source = token_file or credential_file("token")
    if source is None:
        raise ConfigError("no token: use --token-file FILE, or --token-file - for standard input")
    run_connector(ConnectorConfig(read_token(source), Ceiling.parse(allow or []), engine, drain))
