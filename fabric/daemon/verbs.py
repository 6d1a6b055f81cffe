"""The verbs that every daemon has, beside `run` or `up`: `config`, `service`, `ready`, `diag`.

A role says what is its own (`Daemon`), and gets the commands. What they need is imported when they run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import typer

from warren.fabric.core.errors import ConfigError, WarrenError
from warren.fabric.daemon import diag, flags, service

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Daemon(Generic[T]):
    """What a role brings."""

    role: str
    settings: Callable[[Path | None, Mapping[str, object]], T]
    """The file (None: the usual one) and the flags. Raises ConfigError."""
    unit: Callable[[T, Path | None], service.Unit]
    """Its unit for systemd. Raises ConfigError."""
    parts: Callable[[T], Mapping[str, diag.Part]]
    """What its archive has besides what every daemon's has."""


def add(app: typer.Typer, daemon: Daemon[T], *, takes_token: bool = False) -> None:
    """Adds the verbs to the commands of a role. `takes_token`: its service is given a secret by systemd."""
    group = typer.Typer(no_args_is_help=True, help=f"The {daemon.role} as a service of systemd.")
    app.command("config", epilog=f"Example:  warren {daemon.role} config --config {daemon.role}.yaml")(_config(daemon))
    extra = " --token-file /etc/warren/office.token" if takes_token else ""
    install = f"Example:  sudo warren {daemon.role} service install{extra}"
    group.command("install", epilog=install)(_install_with_token(daemon) if takes_token else _install(daemon))
    group.command("uninstall", epilog=f"Example:  sudo warren {daemon.role} service uninstall")(_uninstall(daemon))
    app.add_typer(group, name="service")
    app.command("ready", epilog=f"Example:  warren {daemon.role} ready --metrics 127.0.0.1:9300")(_ready(daemon))
    app.command("diag", epilog=f"Example:  sudo warren {daemon.role} diag warren-{daemon.role}.tar.gz")(_diag(daemon))


def _config(daemon: Daemon[T]) -> Callable[..., None]:
    def config(config: flags.Config = None) -> None:
        """Check the file of settings, and show what it comes to, as JSON."""
        from warren.fabric.daemon.settings import plain

        typer.echo(json.dumps(plain(daemon.settings(config, {})), indent=2))

    return config


def _ready(daemon: Daemon[T]) -> Callable[..., None]:
    def ready(metrics: flags.Metrics = None, config: flags.Config = None) -> None:
        """Ask the running daemon whether it is ready: what its /ready says; the exit code is 0 only if it is.

        For health checks where there is no curl. The daemon has to run with --metrics, or `metrics` in its settings.
        """
        address = getattr(daemon.settings(config, {"metrics": metrics}), "metrics", None)
        if address is None:
            raise ConfigError("no address to ask: give --metrics ADDRESS:PORT, as to the daemon")
        try:
            said = diag.fetch(f"http://{diag.reachable(address)}/ready")
            there = bool(json.loads(said)["ready"])
        except (OSError, ValueError, KeyError, TypeError):
            raise WarrenError(f"no {daemon.role} answers on {address}: does it run, with --metrics?") from None
        typer.echo(said, nl=False)
        if not there:
            raise typer.Exit(1)

    return ready


def _install(daemon: Daemon[T]) -> Callable[..., None]:
    def install(
        config: flags.Config = None,
        show: service.Print = False,
        start: service.Start = True,
        directory: service.UnitDirectory = service.UNITS,
    ) -> None:
        """Write a hardened systemd unit, and start it where systemd runs. --print shows it."""
        service.install(daemon.unit(daemon.settings(config, {}), config), directory, start=start, show=show)

    return install


def _install_with_token(daemon: Daemon[T]) -> Callable[..., None]:
    def install(
        token_file: service.TokenFile = None,
        config: flags.Config = None,
        show: service.Print = False,
        start: service.Start = True,
        directory: service.UnitDirectory = service.UNITS,
    ) -> None:
        """Write a hardened systemd unit, and start it where systemd runs. --print shows it."""
        said = daemon.settings(config, {"token_file": token_file})
        service.install(daemon.unit(said, config), directory, start=start, show=show)

    return install


def _uninstall(daemon: Daemon[T]) -> Callable[..., None]:
    def uninstall(directory: service.UnitDirectory = service.UNITS) -> None:
        """Stop the service, and remove its unit. Settings and state stay."""
        service.uninstall(daemon.role, directory)

    return uninstall


def _diag(daemon: Daemon[T]) -> Callable[..., None]:
    def archive(file: diag.File, config: flags.Config = None) -> None:
        """Write one archive for whoever is to find out what is wrong: without keys and tokens.

        With `metrics` in the settings, what the running daemon says of itself is in it.
        """
        said = daemon.settings(config, {})
        diag.write(file, daemon.role, said, daemon.parts(said))

    return archive
