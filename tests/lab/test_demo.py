"""The demo clears up, however it ends."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from warren.lab import LabError
from warren.lab.lab import Lab
from warren.lab.state import DIRECTORY


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_demo_clears_up_when_it_is_interrupted(number: signal.Signals, step: int) -> None:
    name = f"demo-{secrets.token_hex(4)}"
    argv = [sys.executable, "-u", "-m", "warren.lab.demo", name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        printed = ""
        while not printed.startswith(f" {step}  "):
            printed = demo.stdout.readline()
            assert printed, "the demo ended too early"
        demo.send_signal(number)
        rest = demo.stdout.read()
    assert demo.returncode == 128 + number, rest
    assert not (DIRECTORY / name).exists()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert name not in command.read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
    with pytest.raises(LabError):
        Lab.attach(name)
