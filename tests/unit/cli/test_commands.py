"""What holds for every command there is: an example, JSON, a way to look at what was made and to take it back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from warren.cli.main import app, main

NO_JSON = {
    "agent up": "runs", "connector run": "runs", "edge run": "runs", "dns run": "runs",
    "agent config": "JSON anyway", "connector config": "JSON anyway", "edge config": "JSON anyway",
    "agent ready": "JSON anyway", "connector ready": "JSON anyway", "edge ready": "JSON anyway",
    "agent metrics": "Prometheus's format", "completion": "a shell's script",
    "agent diag": "writes a file", "connector diag": "writes a file", "edge diag": "writes a file",
    "edge backup": "writes a file", "admin export": "writes a file",
    "edge restore": "reads a file", "admin import": "reads a file",
    "agent service install": "the unit", "agent service uninstall": "the unit",
    "connector service install": "the unit", "connector service uninstall": "the unit",
    "edge service install": "the unit", "edge service uninstall": "the unit",
    "agent down": "nothing to tell", "agent unenrol": "nothing to tell",
}  # fmt: skip
"""Commands without --json, and why."""
MAKES = {
    "add": "delete",
    "create": "delete",
    "apply": "rollback",
    "install": "uninstall",
    "enrol": "unenrol",
    "up": "down",
}
"""A verb that makes something, and the one that takes it back."""
LISTED = {"add", "create"}
"""Verbs whose work a `list` beside them shows."""


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "list_commands"):
        yield words, command
        return
    for name in command.list_commands(None):
        yield from walk(command.get_command(None, name), (*words, name))


COMMANDS = dict(walk(typer.main.get_command(app)))
WORDS = [" ".join(words) for words in COMMANDS]


def test_all_are_found() -> None:
    assert len(COMMANDS) > 60
    assert {"agent", "connector", "edge", "tunnel", "route", "dns", "logs", "device", "admin"} < {
        w[0] for w in COMMANDS
    }


@pytest.mark.parametrize("words", WORDS)
def test_help_has_a_sentence_and_an_example_of_that_command(words: str) -> None:
    command = COMMANDS[tuple(words.split())]
    said = f"{command.help} {command.epilog or ''}"
    assert said.split(".")[0].strip()
    assert f"warren {words}" in said.partition("Example")[2]


def test_json_everywhere() -> None:
    without = set()
    for words, command in COMMANDS.items():
        if not any("--json" in parameter.opts for parameter in command.params):
            without.add(" ".join(words))
    assert without == set(NO_JSON)


def test_every_option_says_what_it_is_for() -> None:
    mute = {
        (" ".join(words), parameter.name)
        for words, command in COMMANDS.items()
        for parameter in command.params
        if not getattr(parameter, "help", "")
    }
    assert mute == set()


def test_what_was_made_can_be_seen_and_taken_back() -> None:
    for *group, verb in COMMANDS:
        if verb in MAKES:
            undo = {MAKES[verb], "remove"}
            assert any((*group, one) in COMMANDS for one in undo), f"{' '.join(group)} {verb} can't be undone"
        if verb in LISTED:
            assert (*group, "list") in COMMANDS, f"{' '.join(group)} {verb}, and no list"


@pytest.mark.parametrize("words", ["agent status", "route resolver delete", "edge service install", "dns policy apply"])
def test_an_unknown_option_is_one_line_that_leads_on(capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert main([*words.split(), "--nonsense"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"warren {words} --help" in err
