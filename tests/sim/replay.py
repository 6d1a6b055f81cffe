"""Plays a script of the whole world once more: `python -m tests.sim.replay SCRIPT`, a file or the JSON itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.sim.script import Script, play

CORPUS = Path(__file__).with_name("corpus")


def read(text: str) -> Script:
    """A script from JSON."""
    return Script(**json.loads(text))


def main(arguments: list[str]) -> int:
    text = arguments[0] if arguments[0].lstrip().startswith("{") else Path(arguments[0]).read_text()
    run = play(read(text))
    net = run.world.network
    sys.stdout.write(f"good; {net.now - 1000:.0f} s, {net.carried} packets, mended in {run.mended_in:.2f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
