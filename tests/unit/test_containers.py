"""The Dockerfile, read as an engine would: stages, users, sources, commands, and that no secret is in it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from warren.cli.main import app

ROOT = Path(__file__).parents[2]
WARREN = "/opt/warren/bin/warren"
KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "HEALTHCHECK", "CMD", "VOLUME", "EXPOSE"}
SECRET = re.compile(r"token|secret|passw|_key", re.IGNORECASE)


@dataclass
class Stage:
    name: str
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str:
        return [rest for instruction, rest in self.lines if instruction == word][-1]


def stages() -> dict[str, Stage]:
    """By name, with what they inherit."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        assert word in KNOWN, line
        if word == "FROM":
            base, as_, name = rest.split()
            assert as_ == "AS"
            inherited = list(found[base].lines) if base in found else []
            current = found[name] = Stage(name, base, inherited)
        else:
            current.lines.append((word, rest))
    return found


STAGES = stages()
TARGETS = ("connector", "edge")
NATIVE = "dist/warren_quic*.whl"
"""The one source that need not be there."""


def check_health(stage: Stage) -> list[str]:
    return list(json.loads(stage.last("HEALTHCHECK").partition("CMD ")[2]))


def command_of(stage: Stage) -> list[str]:
    """What runs: entry point and command, both without a shell."""
    return [*json.loads(stage.last("ENTRYPOINT")), *json.loads(stage.last("CMD"))]


def parse(words: list[str]) -> tuple[Any, dict[str, Any]]:
    """The command of `warren`, and its options as Typer reads them."""
    command: Any = typer.main.get_command(app)
    rest = words
    while hasattr(command, "get_command"):
        command, rest = command.get_command(None, rest[0]), rest[1:]
        assert command is not None, words
    context = command.make_context("warren", list(rest))
    return command, dict(context.params)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_runs_as_a_user_without_powers(name: str) -> None:
    stage = STAGES[name]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", stage.last("USER"))
    assert stage.base == "runtime"
    assert not any("pip " in rest for _, rest in stage.lines)  # the compiler's and pip's stage is another


@pytest.mark.parametrize("name", TARGETS)
def test_its_command_and_its_health_check_are_ones_that_warren_has(name: str) -> None:
    stage = STAGES[name]
    entry, *words = command_of(stage)
    check, *asked = check_health(stage)
    assert entry == check == WARREN
    _, options = parse(words)
    _, health = parse(asked)
    assert words[0] == asked[0] == name
    assert options["metrics"] == health["metrics"]


def test_every_source_is_there_and_is_sent_to_the_engine() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for word, rest in STAGES["build"].lines if word == "COPY" for source in rest.split()[:-1]}
    assert copied == sent
    assert NATIVE in copied
    for source in copied - {NATIVE}:
        assert (ROOT / source).exists()
    packages = {path.resolve().name for path in (ROOT / "src" / "warren").iterdir() if path.is_symlink()}
    assert packages <= copied


def test_what_the_edge_writes_is_in_its_volume_and_its_ports_are_published() -> None:
    stage = STAGES["edge"]
    [volume] = json.loads(stage.last("VOLUME"))
    assert stage.last("ENV").startswith(f"WARREN_SOCKET={volume}/")
    document = (ROOT / "docs" / "containers.md").read_text()
    assert f"-v warren-edge:{volume} " in document
    assert re.findall(r"-p 4433:(\S+)", document) == stage.last("EXPOSE").split()


def test_no_secret_is_in_an_image_an_environment_or_an_argument() -> None:
    for stage in STAGES.values():
        for word, rest in stage.lines:
            if word in ("ENV", "COPY"):
                assert not SECRET.search(rest)
    connector = command_of(STAGES["connector"])
    assert connector[connector.index("--token-file") + 1].startswith("/run/secrets/")


def test_the_versions_are_those_of_the_lock() -> None:
    [line] = [rest for word, rest in STAGES["build"].lines if word == "RUN" and "grep" in rest]
    pattern = shlex.split(line)[2]
    lock = (ROOT / "requirements.txt").read_text()
    found = re.findall(pattern, lock, re.MULTILINE)
    assert len(found) == len(re.findall(r"^\S+==", lock, re.MULTILINE)) > 20
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", each) for each in found)
