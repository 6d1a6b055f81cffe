"""Programs of other people: Debian's, or built from their current releases where the machine has Go."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.bench.peers.peer import Missing

FOLDER = Path(sys.prefix) / "bench-peers"
"""Goes with the virtual environment."""
BUILD_WITHIN = 900.0
TRIED = 5
"""Releases from the newest down: one may need a newer Go than this machine's."""


@dataclass(frozen=True, slots=True)
class Program:
    path: str
    version: str
    current: bool
    """Built from a current release, and not Debian's."""


def debian(name: str, program: str | None = None) -> Program:
    """A program of a Debian package. Raises Missing."""
    path = shutil.which(program or name)
    if path is None:
        raise Missing(f"the Debian package {name} is not installed")
    shown = subprocess.run(["dpkg-query", "-W", "-f=${Version}", name], capture_output=True, text=True)
    return Program(path, f"{shown.stdout.strip() or 'unknown'} (Debian)", current=False)


def go_program(package: str, name: str, debian_name: str) -> Program:
    """The program of a Go package, built once, or Debian's. Raises Missing."""
    built = FOLDER / name
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    why = "this machine has no Go"
    if go is not None and not built.exists():
        why = _build(go, package)
    if go is not None and built.exists():
        return Program(str(built), _version(go, built), current=True)
    try:
        return debian(debian_name)
    except Missing as missing:
        raise Missing(f"{why}, and {missing}") from None


def go_tree(module: str, versions: Sequence[str], name: str, files: Mapping[str, str]) -> Program:
    """The program at the top of a Go module, with `files` that its archive leaves out (path → content), built once out
    of the first of `versions` that can be had. Raises Missing."""
    built = FOLDER / name
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise Missing("this machine has no Go")
    if not built.exists():
        why = _build_tree(go, module, tuple(versions), built, files)
        if why:
            raise Missing(why)
    return Program(str(built), _version(go, built), current=True)


def _build_tree(go: str, module: str, versions: tuple[str, ...], built: Path, files: Mapping[str, str]) -> str:
    """Into `built`; why it could not be, or nothing."""
    said = "none of its releases can be had here"
    for version in versions:
        fetched = _go(go, "mod", "download", "-json", f"{module}@{version}")
        if fetched.returncode != 0:
            continue
        tree = FOLDER / f"{built.name}-{version}"
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(json.loads(fetched.stdout)["Dir"], tree)
        for path, content in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(content)
        try:
            done = _go(go, "build", "-o", str(built), ".", folder=tree)
        except subprocess.TimeoutExpired:
            return "the build took too long"
        finally:
            shutil.rmtree(tree, ignore_errors=True)
        if done.returncode == 0:
            built.with_suffix(".version").write_text(version)
            return ""
        said = f"{module}@{version} does not build here: {_last_line(done.stderr)}"
    return said


@cache
def _build(go: str, package: str) -> str:
    """Into `FOLDER`; why it could not be, or nothing."""
    said = "the build failed"
    for version in ["latest", *_versions(go, package)][:TRIED]:
        try:
            done = _go(go, "install", f"{package}@{version}")
        except subprocess.TimeoutExpired:
            return "the build took too long"
        if done.returncode == 0:
            return ""
        said = f"{package}@{version} does not build here: {_last_line(done.stderr)}"
    return said


def _versions(go: str, package: str) -> list[str]:
    """Releases of the module that the package is in, newest first."""
    module = re.sub(r"/cmd/.*", "", package)
    return _go(go, "list", "-m", "-versions", module).stdout.split()[:0:-1]


def _last_line(said: str) -> str:
    """Without addresses of where modules come from."""
    lines = said.strip().splitlines() or ["nothing is said"]
    return re.sub(r"https?://\S+ ?", "", lines[-1].strip())[-200:]


def _go(go: str, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    FOLDER.mkdir(exist_ok=True)
    places = {"GOBIN": str(FOLDER), "GOPATH": str(FOLDER / "go"), "GOCACHE": str(FOLDER / "cache")}
    env = {**os.environ, **places, "GOFLAGS": "-modcacherw -buildvcs=false", "GOTOOLCHAIN": "local"}
    return subprocess.run(
        [go, *words], env=env, cwd=folder or FOLDER, capture_output=True, text=True, timeout=BUILD_WITHIN
    )


def _version(go: str, program: Path) -> str:
    shown = subprocess.run([go, "version", "-m", str(program)], capture_output=True, text=True).stdout
    module = re.search(r"^\tmod\t\S+\t(\S+)", shown, re.MULTILINE)
    compiler = re.search(r": (go\S+)", shown)
    noted = program.with_suffix(".version")
    version = noted.read_text() if noted.exists() else module[1] if module else "unknown"
    return f"{version}, {compiler[1] if compiler else 'go'}"
