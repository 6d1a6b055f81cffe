"""Flags that every daemon has. Their defaults are in the settings (`settings.py`); None: not given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings in YAML; flags win over them. [/etc/warren/ROLE.yaml, if it is there]",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="QUIC engine: auto (native where it is installed), native or aioquic. [auto]"),
]
Controller = Annotated[
    str | None,
    typer.Option("--controller", help="Congestion control of the native engine: warren or cubic. [warren]"),
]
LogLevel = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error. [info]")]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="FILE", help="Log there; opened anew on SIGHUP. [standard error]"),
]
LogFormat = Annotated[str | None, typer.Option("--log-format", help="text, or json: one object a line. [text]")]
Metrics = Annotated[
    str | None,
    typer.Option("--metrics", metavar="ADDRESS:PORT", help="Serve /ready and /metrics over HTTP there. [not at all]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
