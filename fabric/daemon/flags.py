"""Flags that every daemon has. Their defaults are in the settings (`settings.py`); None: not given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

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

EVERY_DAEMON: dict[str, tuple[str, Any]] = {
    "metrics": ("metrics", Metrics),
    "engine": ("engine", Engine),
    "controller": ("controller", Controller),
    "log_level": ("log.level", LogLevel),
    "log_file": ("log.file", LogFile),
    "log_format": ("log.format", LogFormat),
}
"""Parameter → (its key in the settings, its flag)."""


def of_every_daemon(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the flags that every daemon has; it gets what was given as `common`, by key in the settings."""

    @functools.wraps(command)
    def with_them(**given: Any) -> None:
        common: Mapping[str, object] = {key: given.pop(name) for name, (key, _) in EVERY_DAEMON.items()}
        command(**given, common=common)

    own = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, (_, kind) in EVERY_DAEMON.items()
    ]
    kept = [parameter for parameter in own.parameters.values() if parameter.name != "common"]
    with_them.__signature__ = own.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    with_them.__annotations__ = {one.name: one.annotation for one in [*kept, *more]}
    return with_them
