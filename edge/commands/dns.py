"""warren dns: the edge's resolver; with --config the one that runs on its own (warren.dnsfilter.cli)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from warren.dnsfilter import cli as alone
from warren.dnsfilter import policycli
from warren.edge.client import Client, EdgeError
from warren.edge.commands import options, screen
from warren.fabric.core.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="DNS: the edge's filtering resolver, or with --config one of its own.",
)
policy = typer.Typer(no_args_is_help=True, help="Who may have which names: one file, applied as a whole.")
app.add_typer(policy, name="policy")
app.command("run", epilog="Example:  `warren dns run --listen 192.168.1.2:53 --block https://lists.example/ads.txt`")(
    alone.run
)

Alone = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Of a resolver on its own; without it the edge is asked."),
]
PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="YAML; docs/dns.md describes it.")]
WAIT = 60.0
"""Seconds that the edge may take to read a large query log."""


@app.command("test", epilog="Example:  `warren dns test ads.example --as anns-laptop`")
def test(
    name: Annotated[str, typer.Argument(help="The name that is asked for.")],
    as_: Annotated[str, typer.Option("--as", metavar="DEVICE", help="Who asks; nobody known by default.")] = "",
    kind: Annotated[str, typer.Option("--type", metavar="TYPE", help="Query type.")] = "A",
    ask: Annotated[bool, typer.Option("--ask", help="Ask the upstreams too, and look where the answer leads.")] = False,
    config: Alone = None,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Say what would happen to a query, and why. Decided by the code that decides for devices."""
    if config is not None:
        alone.test(name, as_ or "127.0.0.1", kind, config, ask=ask, as_json=json)
        return
    said = Client(socket).post("/v1/dns/test", {"name": name, "type": kind, "device": as_, "ask": ask})
    if json:
        screen.show_json(said)
        return
    screen.show_pairs([(word, value) for word, value in said.items() if value])


@app.command("lists", epilog="Example:  `warren dns lists --refresh`")
def lists(
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask every source now.")] = False,
    config: Alone = None,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Show the lists: entries, size, age, and what went wrong with them."""
    if config is not None:
        alone.lists(config, as_json=json)
        return
    client = Client(socket)
    if refresh:
        client.post("/v1/dns/lists/refresh", {})
        screen.remark("The lists are being asked for; they are swapped in when they are built.")
        return
    found = client.get("/v1/dns/lists")
    if json:
        screen.show_json(found)
        return
    rows = [
        (
            entry["name"],
            entry["kind"],
            ",".join(entry["categories"]) or "-",
            entry["entries"],
            entry["ignored"],
            _size(entry["bytes"]),
            _age(entry["fetched"]),
            entry["error"] or "-",
        )
        for entry in found
    ]
    columns = ("NAME", "KIND", "CATEGORIES", "ENTRIES", "IGNORED", "SIZE", "AGE", "ERROR")
    screen.show_table(columns, rows, "There are no lists; name some under `dns.lists` in edge.yaml.")


@app.command("top", epilog="Example:  `warren dns top --hours 1`")
def top(
    hours: Annotated[float, typer.Option("--hours", min=0, help="Window, up to now.")] = 24,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="Lines of each kind.")] = 10,
    config: Alone = None,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Show the names, blocked names, clients and rules that the query log has most of."""
    if config is not None:
        alone.top(config, hours, count)
        return
    since = time.time() - hours * 3600
    found = Client(socket, WAIT).get(f"/v1/dns/top?since={since:.0f}&count={count}")
    if json:
        screen.show_json(found)
        return
    for word, title in (("names", "NAME"), ("blocked", "BLOCKED"), ("clients", "DEVICE"), ("rules", "RULE")):
        screen.show_table((title, "QUERIES"), found[word], f"{title}: none in that time.")


# ---- policy ----


@policy.command("apply", epilog="Example:  `warren dns policy apply policy.yaml --dry-run`")
def apply(
    file: PolicyFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why, for the history.")] = "",
    config: Alone = None,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Put a policy in use as a whole. An expectation in it that does not hold stops it, and nothing is changed."""
    text = _read(file)
    if config is not None:
        policycli.policy_apply(file, config, dry_run=dry_run, note=note)
        return
    said = Client(socket).put("/v1/dns/policy", {"text": text, "note": note, "dry_run": dry_run})
    _show(said, json, dry_run=dry_run)


@policy.command("test", epilog="Examples:  `warren dns policy test`   ·   `warren dns policy test policy.yaml`")
def policy_test(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Of the policy in use by default.")] = None,
    config: Alone = None,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Try the expectations that stand beside the rules; exit code 1 if one does not hold."""
    if config is not None:
        policycli.policy_test(file, config)
        return
    client = Client(socket)
    if file is None:
        said = client.get("/v1/dns/policy/test")
    else:
        said = client.put("/v1/dns/policy", {"text": _read(file), "dry_run": True})
    if json:
        screen.show_json(said["expectations"])
    else:
        _show_expectations(said)
    _fail_if_broken(said)


@policy.command("show", epilog="Example:  `warren dns policy show > policy.yaml`")
def show(
    number: Annotated[int | None, typer.Option("--number", help="An older one; `history` has the numbers.")] = None,
    config: Alone = None,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Print the policy in use, as its file."""
    if config is not None:
        policycli.policy_show(number, config)
        return
    said = Client(socket).get("/v1/dns/policy" + (f"?number={number}" if number is not None else ""))
    if json:
        screen.show_json(said)
        return
    typer.echo(said["text"].rstrip("\n"))
    if not said["number"]:
        screen.remark("Nobody has applied a policy: what is on a block list is blocked for everybody.")


@policy.command("history", epilog="Example:  `warren dns policy history`")
def history(config: Alone = None, socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show the policies that were applied, newest first."""
    if config is not None:
        policycli.policy_history(config, as_json=json)
        return
    found = Client(socket).get("/v1/dns/policy/history")
    if json:
        screen.show_json(found)
        return
    rows = [
        (entry["number"], screen.moment(entry["applied"]), len(entry["changes"]), entry["note"] or "-")
        for entry in found
    ]
    screen.show_table(("NUMBER", "APPLIED", "CHANGES", "NOTE"), rows, "No policy has been applied.")


@policy.command("rollback", epilog="Example:  `warren dns policy rollback 3`")
def rollback(
    number: Annotated[
        int | None, typer.Argument(help="Of the policy that comes back; the one before by default.")
    ] = None,
    config: Alone = None,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Put an older policy in use again."""
    if config is not None:
        policycli.policy_rollback(number, config)
        return
    _show(Client(socket).post("/v1/dns/policy/rollback", {"number": number}), json, dry_run=False)


def _show(said: dict[str, Any], json: bool, *, dry_run: bool) -> None:
    if json:
        screen.show_json(said)
    else:
        for line in said["changes"]:
            typer.echo(screen.plain(line))
        _show_expectations(said)
    if dry_run:
        _fail_if_broken(said)
        screen.remark("Nothing was changed (--dry-run).")
    else:
        screen.remark(f"Policy {said['number']} is in use.")


def _show_expectations(said: dict[str, Any]) -> None:
    for outcome in said["expectations"]:
        typer.echo(f"{'ok  ' if outcome['holds'] else 'FAIL'} {screen.plain(outcome['text'])}")


def _fail_if_broken(said: dict[str, Any]) -> None:
    broken = [outcome for outcome in said["expectations"] if not outcome["holds"]]
    if broken:
        raise EdgeError(f"{len(broken)} of {len(said['expectations'])} expectations do not hold")


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is no policy: it is not text") from None


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.1f} KiB"


def _age(fetched: float) -> str:
    if not fetched:
        return "never"
    hours = max(0.0, time.time() - fetched) / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} d"
