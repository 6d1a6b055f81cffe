"""Plays a script of the whole world once more: `python -m tests.sim.replay SCRIPT`, a file or the JSON itself.

Who comes first in a set of names or keys is for their hashes to say, which differ from process to process: here and in
the soak they are fixed, as far as PYTHONHASHSEED is not set.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.sim.script import Script, play

CORPUS = Path(__file__).with_name("corpus")


def read(text: str) -> Script:
    """A script from JSON."""
    return Script(**json.loads(text))


def fix_hashes() -> None:
    """Begins this program again, with hashes that are the same each time."""
    if "PYTHONHASHSEED" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONHASHSEED": "0"})


def main(arguments: list[str]) -> int:
    text = arguments[0] if arguments[0].lstrip().startswith("{") else Path(arguments[0]).read_text()
    run = play(read(text))
    net = run.world.network
    sys.stdout.write(f"good; {net.now - 1000:.0f} s, {net.carried} packets, mended in {run.mended_in:.2f} s\n")
    return 0


if __name__ == "__main__":
    fix_hashes()
    sys.exit(main(sys.argv[1:]))
