"""A screen of the agent's status that people leave open: looked at anew every second, also while no agent runs."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from warren.agent.control import ask
from warren.agent.status import screen
from warren.fabric.core.errors import ConfigError


def watch(socket: Path, interval: float, *, as_json: bool) -> None:
    """Until Ctrl-C. `as_json`: one object a line. An agent that is away is waited for."""
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            _lines(socket, interval)
            return
        with Live(_look(socket), console=Console(), screen=sys.stdout.isatty(), auto_refresh=False) as live:
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
