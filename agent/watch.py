"""The agent's status on the screen: once, or looked at anew every second, also while no agent runs."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from warren.agent.control import ask
from warren.agent.status import screen
from warren.fabric.core.errors import ConfigError

WIDE = 1000
"""Columns where nobody looks at a screen: what a program reads is never cut."""


def console() -> Console:
    """Nothing in the status is markup: an address in brackets is an address."""
    return Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else WIDE)


def show(said: dict[str, Any]) -> None:
    """Once. Without blanks at the ends of lines where a program reads them."""
    where = console()
    if where.is_terminal:
        where.print(screen(said))
        return
    with where.capture() as capture:
        where.print(screen(said))
    sys.stdout.writelines(line.rstrip() + "\n" for line in capture.get().splitlines())


def watch(socket: Path, interval: float, *, as_json: bool) -> None:
    """Until Ctrl-C. `as_json`: one object a line. An agent that is away is waited for."""
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            _lines(socket, interval)
            return
        with Live(_look(socket), console=console(), screen=sys.stdout.isatty(), auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_look(socket), refresh=True)


def _lines(socket: Path, interval: float) -> None:
    while True:
        try:
            said = ask(socket, {"do": "status"})
        except ConfigError as error:
            said = {"error": str(error)}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        time.sleep(interval)


def _look(socket: Path) -> RenderableType:
    try:
        return screen(ask(socket, {"do": "status"}))
    except ConfigError as error:
        return Text(str(error), style="red")
