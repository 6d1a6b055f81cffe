"""`warren dns policy … --config`: the policies of a resolver on its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from warren.dnsfilter.app import policy_book
from warren.dnsfilter.core.expectations import Outcome, check
from warren.dnsfilter.offline import one_line_errors, resolver_of, settings_of
from warren.dnsfilter.policies import PolicyBook, Trial, parse
from warren.dnsfilter.refresh import Lists
from warren.dnsfilter.running import wake
from warren.dnsfilter.settings import Settings
from warren.fabric.core.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="The policy of a configuration.")

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; docs/dns.md describes it.")]
T = TypeVar("T")


@app.command("test")
def policy_test(
    file: Annotated[Path | None, typer.Argument(help="Of the policy in use by default.")] = None,
    config: ConfigOption = None,
) -> None:
    """Check the expectations that stand beside the rules; exit code 1 if one does not hold."""
    with one_line_errors():
        settings = settings_of(config)
        outcomes = asyncio.run(_expectations(settings, None if file is None else _read(file)))
    for outcome in outcomes:
        typer.echo(f"{'ok  ' if outcome.holds else 'FAIL'} {outcome.text}")
    if not all(outcome.holds for outcome in outcomes):
        raise typer.Exit(1)


@app.command("apply")
def policy_apply(
    file: Annotated[Path, typer.Argument(help="YAML file; docs/dns.md describes it.")],
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option(help="Show what would change, and change nothing.")] = False,
    note: Annotated[str, typer.Option(help="Why, for the history.")] = "",
) -> None:
    """Put a policy in use as a whole, instead of the configuration's. A broken expectation stops it."""
    with one_line_errors():
        settings = settings_of(config)
        trial = asyncio.run(_apply(settings, _read(file), note, dry_run))
        told = not dry_run and wake(Path(settings.state))
    _show_trial(trial)
    if dry_run:
        if trial.broken:
            raise typer.Exit(1)
        return
    _say_whether_used(told)


@app.command("show")
def policy_show(
    number: Annotated[int | None, typer.Option(help="An older one; `history` has the numbers.")] = None,
    config: ConfigOption = None,
) -> None:
    """Print the policy in use, as its file."""
    with one_line_errors():
        text = asyncio.run(_book(settings_of(config), lambda policies: policies.text(number)))
    typer.echo(text.rstrip("\n"))


@app.command("history")
def policy_history(
    config: ConfigOption = None, as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False
) -> None:
    """Show the policies that were applied, newest first."""
    with one_line_errors():
        kept = asyncio.run(_book(settings_of(config), lambda policies: policies.history()))
    table = Table("number", "applied", "note")
    for revision in kept:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(revision.applied))
        table.add_row(str(revision.number), moment, revision.note)
        if as_json:
            typer.echo(json.dumps({"number": revision.number, "applied": revision.applied, "note": revision.note}))
    if not as_json:
        Console().print(table)


@app.command("rollback")
def policy_rollback(
    number: Annotated[int | None, typer.Argument(help="Of the one that comes back; the one before by default.")] = None,
    config: ConfigOption = None,
) -> None:
    """Put an older policy in use again."""
    with one_line_errors():
        settings = settings_of(config)
        trial = asyncio.run(_rollback(settings, number))
        told = wake(Path(settings.state))
    _show_trial(trial)
    _say_whether_used(told)


def _show_trial(trial: Trial) -> None:
    for line in trial.changes:
        typer.echo(line)
    for outcome in trial.outcomes:
        typer.echo(f"{'ok  ' if outcome.holds else 'FAIL'} {outcome.text}")


def _say_whether_used(told: bool) -> None:
    typer.echo("in use" if told else "kept; it is used when the resolver starts", err=True)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {getattr(error, 'strerror', None) or 'it is not text'}") from None


async def _book(settings: Settings, asked: Callable[[PolicyBook], Awaitable[T]]) -> T:
    """Of the policies alone: no list is read."""
    held = Lists(settings.lists, settings.policy, tuple(settings.resolver_config().groups), Path(settings.state))
    policies = policy_book(settings, held)
    await policies.load()
    return await asked(policies)


async def _rollback(settings: Settings, number: int | None) -> Trial:
    resolver, policies = await resolver_of(settings)
    try:
        return (await policies.rollback(number))[0]
    finally:
        await resolver.close()


async def _apply(settings: Settings, text: str, note: str, dry_run: bool) -> Trial:
    resolver, policies = await resolver_of(settings)
    try:
        if dry_run:
            return policies.attempt(parse(text, "policy"))
        return (await policies.apply(text, note))[0]
    finally:
        await resolver.close()


async def _expectations(settings: Settings, text: str | None) -> list[Outcome]:
    """Of that file; None: of the policy in use."""
    resolver, policies = await resolver_of(settings)
    try:
        if text is not None:
            return list(policies.attempt(parse(text, "policy")).outcomes)
        return check(policies.document.expectations, resolver.slot.current)
    finally:
        await resolver.close()
