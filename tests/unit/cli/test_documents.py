"""What the documents say of commands and settings is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from warren.agent.config import AgentConfig
from warren.cli.main import app
from warren.connector.config import ConnectorConfig
from warren.edge.config import EdgeConfig
from warren.fabric.daemon.settings import read

DOCS = Path(__file__).parents[3] / "docs"
KINDS: dict[str, type[msgspec.Struct]] = {"agent": AgentConfig, "connector": ConnectorConfig, "edge": EdgeConfig}


def commands() -> list[str]:
    """Every `warren …` between backticks in words.md and settings.md."""
    text = (DOCS / "words.md").read_text() + (DOCS / "settings.md").read_text()
    return sorted(set(re.findall(r"`(?:sudo )?(warren [a-z][^`…|]*)`", text)))


def option_names(command: Any) -> set[str]:
    return {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}


@pytest.mark.parametrize("words", commands())
def test_a_command_that_is_named_exists_with_its_options(words: str) -> None:
    command: Any = typer.main.get_command(app)
    rest = words.split()[1:]
    while rest and hasattr(command, "get_command") and (found := command.get_command(None, rest[0])) is not None:
        command, rest = found, rest[1:]
    assert not rest or not hasattr(command, "get_command"), f"{words}: {rest[0]} is no command"
    assert {word for word in rest if word.startswith("--")} <= option_names(command) | {"--help"}


@pytest.mark.parametrize("role", KINDS)
def test_the_settings_that_are_shown_are_all_there_are(role: str, tmp_path: Path) -> None:
    section = (DOCS / "settings.md").read_text().split(f"## {role}.yaml")[1]
    block = section.split("```yaml\n")[1].split("```")[0]
    file = tmp_path / f"{role}.yaml"
    file.write_text(block)
    read(KINDS[role], role, file)
    shown = set(re.findall(r"^(\w+):", block, re.MULTILINE))
    assert shown == {field.encode_name for field in msgspec.structs.fields(KINDS[role])}
