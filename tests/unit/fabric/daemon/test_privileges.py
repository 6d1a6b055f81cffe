"""Capabilities given up stay given up. Each case is a process of its own: nothing of this can be undone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from warren.fabric.daemon.privileges import NUMBERS, to_write_in

PROGRAM = """
import sys, threading
from warren.fabric.daemon.privileges import keep_only
keep_only(sys.argv[1:])
keep_only(sys.argv[1:])
lines = []
thread = threading.Thread(target=lambda: lines.extend(open("/proc/thread-self/status")))
thread.start()
thread.join()
print("".join(line for line in lines if line.startswith(("Cap", "NoNewPrivs"))))
"""


def after(*names: str) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, check=True)
    fields = dict(line.split() for line in done.stdout.splitlines() if line)
    return {name.rstrip(":"): int(value, 16) for name, value in fields.items()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
@pytest.mark.parametrize("names", [(), ("CAP_NET_RAW",), ("CAP_NET_ADMIN", "CAP_CHOWN")])
def test_only_what_is_named_is_left(names: tuple[str, ...]) -> None:
    kept = sum(1 << NUMBERS[name] for name in names)
    sets = after(*names)
    assert sets == {
        "CapInh": 0,
        "CapPrm": kept,
        "CapEff": kept,
        "CapBnd": kept,
        "CapAmb": 0,
        "NoNewPrivs": 1,
    }


def test_a_directory_of_ones_own_needs_nothing(tmp_path: Path) -> None:
    assert to_write_in(tmp_path) == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_does(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    assert to_write_in(tmp_path) == ("CAP_DAC_OVERRIDE",)
