"""The `warren` command: each role brings its own sub-commands, imported only when they are used.

Errors are one line on standard error, `warren: …`. Exit codes: 0 done; 1 it can't be done now, or was refused; 2 the
command line or the configuration is wrong; 130 Ctrl-C. `--debug` or WARREN_DEBUG=1 shows where an error comes from.
"""

from __future__ import annotations

import enum
import importlib
import json as json_text
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]  # not in __all__
from typer.core import TyperGroup

from warren.fabric.core.errors import ConfigError, WarrenError

FAILED = 1
WRONG = 2
INTERRUPTED = 130
COMPLETE = "_WARREN_COMPLETE"
"""Set by the shell when it wants words completed."""


@dataclass(frozen=True, slots=True)
class Part:
    """One role's commands: `attribute` of `module` is a Typer app."""

    module: str
    attribute: str
    help: str
    """Shown while the module is not installed."""


PARTS = {
    "agent": Part("warren.agent.cli", "app", "The agent: this device's way into the private networks."),
    "connector": Part("warren.connector.cli", "app", "The connector: runs inside a private network, dials out only."),
    "edge": Part("warren.edge.commands.edges", "app", "The edge: the public host that judges and switches."),
    "tunnel": Part("warren.edge.commands.tunnels", "app", "Tunnels: named ways into private networks."),
    "route": Part("warren.edge.commands.routes", "app", "Routes: which addresses and names lie behind which tunnel."),
    "dns": Part("warren.edge.commands.dns", "app", "DNS: the edge's filtering resolver, or one on its own."),
    "logs": Part("warren.edge.commands.logs", "app", "Logs: what the edge has seen."),
    "device": Part("warren.edge.commands.devices", "app", "Devices: who may reach what lies behind the tunnels."),
    "admin": Part("warren.edge.commands.admins", "app", "The administrator's keys, and an encrypted copy of them."),
}


class Shell(enum.Enum):
    """Shells that complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


class Parts(TyperGroup):
    """A group whose sub-commands are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The parts first, in their order."""
        return [*PARTS, *(name for name in super().list_commands(ctx) if name not in PARTS)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Imports the part. One that is missing becomes a command that says so."""
        part = PARTS.get(cmd_name)
        return super().get_command(ctx, cmd_name) if part is None else _load(cmd_name, part)


app = typer.Typer(
    cls=Parts,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="Start with `warren edge init --help` on a public host. Every command has a --help with an example.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"warren {_version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version, and no more.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", envvar="WARREN_DEBUG", help="Show where an error comes from.")] = (
        False
    ),
) -> None:
    """Warren: reach private networks without opening a port on them.

    An **edge** on a public host, a **connector** inside each private network, an **agent** on each
    device. What flows between agent and connector is encrypted from end to end; the edge decides, and can't read.
    """


@app.command(epilog="Example:  `warren version --json`")
def version(json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False) -> None:
    """Show the versions of Warren and of Python."""
    said = {
        "warren": _version(),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
    }
    text = f"warren {said['warren']} (Python {said['python']}, {said['system']} {said['machine']})"
    typer.echo(json_text.dumps(said) if json else text)


@app.command(epilog='Example, for bash, in ~/.bashrc:  `eval "$(warren completion bash)"`')
def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print what makes your shell complete Warren's commands and options.

    fish: `warren completion fish > ~/.config/fish/completions/warren.fish`; zsh: after `compinit` in ~/.zshrc,
    `eval "$(warren completion zsh)"`.
    """
    typer.echo(get_completion_script(prog_name="warren", complete_var=COMPLETE, shell=shell.value))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if COMPLETE in os.environ:
        completion_init()
    try:
        result = typer.main.get_command(app)(args=list(arguments), prog_name="warren", standalone_mode=False)
    except Exception as error:
        if _debugging(arguments):
            traceback.print_exc()
        text, code = _told(error)
        if text:
            sys.stderr.write(f"warren: {_one_line(text)}\n")
        return code
    return result if isinstance(result, int) else 0


def _told(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit code."""
    if isinstance(error, ConfigError):
        return str(error), WRONG
    if isinstance(error, WarrenError):
        return str(error), FAILED
    if isinstance(error, ModuleNotFoundError):
        return _missing(error), WRONG
    if hasattr(error, "format_message"):  # of Typer: usage
        return _usage(error)
    if isinstance(error, typer.Abort):
        return "given up", FAILED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", FAILED
    return f"a fault in Warren ({type(error).__name__}: {error}): WARREN_DEBUG=1 shows where", FAILED


def _usage(error: Any) -> tuple[str, int]:
    """Without arguments, help was asked for, and has been printed."""
    context = getattr(error, "ctx", None)
    message = str(error.format_message())
    if not message.strip() or type(error).__name__ == "NoArgsIsHelpError":
        return "", WRONG
    hint = f" (try: {context.command_path} --help)" if context is not None else ""
    return message.rstrip(".") + hint, int(error.exit_code)


def _load(name: str, part: Part) -> Any:
    try:
        sub: typer.Typer = getattr(importlib.import_module(part.module), part.attribute)
    except ModuleNotFoundError as error:
        return _stub(name, part, error)
    whole = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    whole.add_typer(sub, name=name)
    whole.callback()(lambda: None)
    group: Any = typer.main.get_command(whole)
    return group.commands[name]


def _stub(name: str, part: Part, error: ModuleNotFoundError) -> Any:
    stub = typer.Typer(add_completion=False)
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}

    @stub.command(help=f"{part.help} (not installed)", context_settings=settings)
    def refuse() -> None:
        raise error

    command = typer.main.get_command(stub)
    command.name = name
    return command


def _missing(error: ModuleNotFoundError) -> str:
    name = error.name or "a module"
    if name.partition(".")[0] == "warren":
        return f"this installation has no {name}: install all of Warren, pip install 'warren[edge]'"
    return f"this command needs the package {name.partition('.')[0]}: install it with pip install 'warren[edge]'"


def _one_line(text: str) -> str:
    joined = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in joined)


def _debugging(arguments: Sequence[str]) -> bool:
    return "--debug" in arguments or os.environ.get("WARREN_DEBUG", "") not in ("", "0")


def _version() -> str:
    try:
        return metadata.version("warren")
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
