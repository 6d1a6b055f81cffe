"""warren logs: what the edge has seen."""

from __future__ import annotations

import json as json_text
import time
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from warren.edge.client import Client
from warren.edge.commands import options, screen

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Logs: what the edge has seen.")
FOLLOW = 0.5
"""Seconds between looks for new lines."""


@app.callback()
def logs() -> None:
    """What the edge has seen."""


@app.command(
    epilog="Examples:  `warren logs dns --follow --verdict blocked`   ·   `warren logs dns --all --json > dns.jsonl`"
)
def dns(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as queries come.")] = False,
    last: Annotated[int, typer.Option("--last", min=0, max=1000, help="Lines to begin with.")] = 50,
    all_: Annotated[bool, typer.Option("--all", help="Everything that is kept.")] = False,
    hours: Annotated[float, typer.Option("--hours", min=0, help="Only so far back; 0: all.")] = 0,
    verdict: Annotated[str, typer.Option("--verdict", help="Only this one, as in blocked.")] = "",
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="Only this device.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Only this user.")] = "",
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="Only names that contain this.")] = "",
    socket: options.Socket = options.SOCKET,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show DNS queries: who asked what, how it ended, and by which rule."""
    client = Client(socket)
    asked: dict[str, Any] = {"verdict": verdict, "device": device, "user": user, "name": name}
    if hours:
        asked["since"] = f"{time.time() - hours * 3600:.0f}"
    asked["last"] = 0 if all_ or hours else last
    cursor = "end" if not last and not all_ and not hours else ""
    try:
        while True:
            page = client.get(f"/v1/dns/log?{urlencode(asked | {'cursor': cursor})}")
            for line in page["lines"]:
                typer.echo(json_text.dumps(line) if json else _line(line))
            moved, cursor = page["cursor"] != cursor, page["cursor"]
            if page["more"] and moved:
                continue
            if not follow:
                return
            time.sleep(FOLLOW)
    except KeyboardInterrupt:
        return


def _line(said: dict[str, Any]) -> str:
    when = time.strftime("%m-%d %H:%M:%S", time.localtime(said["time"]))
    who = said.get("device", "") or said.get("address", "") or "-"
    user = f" ({said['user']})" if said.get("user") else ""
    because = ", ".join(said[word] for word in ("rule", "list", "upstream") if said.get(word))
    text = f"{when}  {who}{user}  {said['name']} {said['type']}  {said['verdict']}  {said['ms']:.1f} ms"
    return screen.plain(f"{text}  {because}" if because else text)
