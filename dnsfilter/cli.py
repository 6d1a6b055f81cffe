"""`warren dns`: the resolver on its own, and what it would say."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from warren.dnsfilter import policycli
from warren.dnsfilter.app import serve
from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.explain import explain, question
from warren.dnsfilter.offline import for_this_host, one_line_errors, resolver_of, settings_of
from warren.dnsfilter.refresh import read_states
from warren.dnsfilter.running import running
from warren.dnsfilter.settings import Settings
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.trimming import trimmed

app = typer.Typer(no_args_is_help=True, help="The filtering resolver: run it on its own, and ask why it says what.")
app.add_typer(policycli.app, name="policy")

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; docs/dns.md describes it.")]
_FOLLOW_S = 0.5
_DESCRIPTORS = 8192


@app.command()
def run(
    config: ConfigOption = None,
    listen: Annotated[list[str] | None, typer.Option(help="ADDRESS:PORT for UDP and TCP; may be repeated.")] = None,
    upstream: Annotated[list[str] | None, typer.Option(help="Resolver to ask; may be repeated.")] = None,
    state: Annotated[Path | None, typer.Option(help="Directory for lists and the query log.")] = None,
    block: Annotated[list[str] | None, typer.Option(help="Block list, a path or URL; may be repeated.")] = None,
) -> None:
    """Answer queries until stopped; SIGHUP asks for new lists.

    Nothing has to be said: it listens on 127.0.0.1, port 53 for root and 5353 for others, and asks the nameservers of
    /etc/resolv.conf. For a LAN:

    warren dns run --listen 192.168.1.2:53 --block https://lists.example/ads.txt
    """
    with one_line_errors():
        settings = for_this_host(settings_of(config, listen, upstream, state, block))
        if not settings.resolver_config().groups:
            raise ConfigError(
                "no upstreams, and none in /etc/resolv.conf but this one; name one, as in --upstream 192.0.2.53"
            )
        with Progress(console=Console(stderr=True), transient=True) as bars:
            uvloop.run(_serve(settings, bars))


@app.command()
def test(
    name: Annotated[str, typer.Argument(help="The name that is asked for.")],
    as_: Annotated[str, typer.Option("--as", help="Device, user or address that asks.")] = "127.0.0.1",
    kind: Annotated[str, typer.Option("--type", help="Query type.")] = "A",
    config: ConfigOption = None,
    ask: Annotated[bool, typer.Option(help="Ask the upstreams too, and look at where the answer leads.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what would happen to a query, and why. Decided by the code that decides in the server."""
    with one_line_errors():
        settings = settings_of(config)
        said = asyncio.run(_test(settings, name, as_, kind, ask))
    if as_json:
        typer.echo(json.dumps(said))
        return
    for key, value in said.items():
        if value:
            typer.echo(f"{key:>9}: {value}")


@app.command()
def lists(
    config: ConfigOption = None, as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False
) -> None:
    """The lists: entries, age, and what went wrong with them."""
    with one_line_errors():
        settings = settings_of(config)
        states = read_states(Path(settings.state), settings.lists)
    table = Table("list", "entries", "ignored", "age", "error")
    for known in states:
        age = f"{(time.time() - known.fetched) / 3600:.1f} h" if known.fetched else "never"
        table.add_row(known.name, str(known.entries), str(known.ignored), age, known.error)
        if as_json:
            row = {"name": known.name, "entries": known.entries, "ignored": known.ignored, "fetched": known.fetched}
            typer.echo(json.dumps(row | {"error": known.error, "problems": known.problems}))
    if not as_json:
        Console().print(table)


@app.command()
def log(
    config: ConfigOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as queries come.")] = False,
    verdict: Annotated[str, typer.Option(help="Only this verdict, as in blocked.")] = "",
    device: Annotated[str, typer.Option(help="Only this device.")] = "",
    name: Annotated[str, typer.Option(help="Only names that contain this.")] = "",
) -> None:
    """The query log as JSON lines."""
    with one_line_errors():
        for line in _logged(config, follow):
            said = json.loads(line)
            wanted = verdict in ("", said["verdict"]) and device in ("", said.get("device", ""))
            if wanted and name in said["name"]:
                typer.echo(line)


@app.command()
def top(
    config: ConfigOption = None,
    hours: Annotated[float, typer.Option(help="Window, up to now.")] = 24,
    count: Annotated[int, typer.Option(help="Lines of each kind.")] = 10,
) -> None:
    """The names, blocked names and clients that the query log has most of."""
    with one_line_errors():
        since = time.time() - hours * 3600
        names: Counter[str] = Counter()
        blocked: Counter[str] = Counter()
        clients: Counter[str] = Counter()
        for line in _logged(config, follow=False):
            said = json.loads(line)
            if said["time"] < since:
                continue
            names[said["name"]] += 1
            clients[said.get("device") or said.get("address", "")] += 1
            if said["verdict"] == "blocked":
                blocked[said["name"]] += 1
    for title, counter in (("name", names), ("blocked", blocked), ("client", clients)):
        table = Table(title, "queries")
        for key, number in counter.most_common(count):
            table.add_row(key, str(number))
        Console().print(table)


async def _serve(settings: Settings, bars: Progress) -> None:
    _raise_descriptor_limit()
    stop, refresh_now, tasks = asyncio.Event(), asyncio.Event(), {}
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, refresh_now.set)

    def progress(name: str, done: int, size: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=size)
        bars.update(tasks[name], completed=done)

    def ready(ports: list[int]) -> None:
        bars.stop()
        typer.echo(f"answering on {', '.join(settings.listen)}", err=True)

    with running(Path(settings.state)), trimmed():
        await serve(settings, stop, progress, ready, refresh_now)


def _raise_descriptor_limit() -> None:
    """As far as the system lets us: each question in flight and each connection holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _test(settings: Settings, name: str, as_: str, kind: str, ask: bool) -> dict[str, str]:
    query, client = question(name, kind), ClientBook(settings.clients).named(as_)
    resolver, _ = await resolver_of(settings)
    try:
        return await explain(resolver, query, client, settings.resolver_config(), ask=ask)
    finally:
        await resolver.close()


def _logged(config: Path | None, follow: bool) -> Iterator[str]:
    path = Path(settings_of(config).state) / "queries.jsonl"
    if not path.exists():
        raise ConfigError(f"{path}: there is no query log; set log.enabled in the configuration")
    older = path.with_suffix(".jsonl.1")
    if older.exists():
        yield from _lines(older, follow=False)
    yield from _lines(path, follow)


def _lines(path: Path, follow: bool) -> Iterator[str]:
    """Lines of the log; with `follow` for ever, also over the change to a new file."""
    file = path.open()
    try:
        while True:
            line = file.readline()
            if line.endswith("\n"):
                yield line.rstrip("\n")
            elif not follow:
                return
            else:
                time.sleep(_FOLLOW_S)
                if path.exists() and path.stat().st_ino != _inode(file.fileno()):
                    file.close()
                    file = path.open()
    finally:
        file.close()


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


if __name__ == "__main__":
    app()
