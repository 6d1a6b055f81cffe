"""Completion, also of commands that are imported only when they are used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from warren.cli.main import main

SHELLS = ("bash", "zsh", "fish")


def completed(words: str) -> list[str]:
    """What bash offers for the last word."""
    count = len(words.split()) - (not words.endswith(" "))
    more = {"COMP_WORDS": words, "COMP_CWORD": str(count), "_WARREN_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "warren.cli"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **more}, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("warren ed", ["edge"]),
        ("warren edge service ", ["install", "uninstall"]),
        ("warren agent status --w", ["--watch"]),
        ("warren route ip ", ["add", "list", "delete"]),
        ("warren connector run --log-f", ["--log-file", "--log-format"]),
        ("warren completion ", list(SHELLS)),
    ],
)
def test_lazy_commands_are_completed(words: str, offered: list[str]) -> None:
    assert sorted(completed(words)) == sorted(offered)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_WARREN_COMPLETE=complete_{shell}" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_another_shell_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err


def test_version_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    assert '"python"' in capsys.readouterr().out
