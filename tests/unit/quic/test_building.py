"""tools/native.sh where the engine can't be built: one line says why, and nothing fails unless it must be there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wheel import ROOT

TOOLS = ("bash", "cat", "cut", "dirname", "find", "head", "rm", "sha256sum", "sort", "xargs")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with a `.venv` and no sources, beside a folder with the few programs that the script may find."""
    (tmp_path / "tools").mkdir()
    for name in ("native.sh", "native-requirements.txt"):
        shutil.copy(ROOT / "tools" / name, tmp_path / "tools")
    for folder in ("quic", "programs", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (tmp_path / "programs" / name).symlink_to(found)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    return tmp_path


def native(tree: Path, word: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs it with the programs of the tree alone."""
    return subprocess.run(
        [tree / "tools/native.sh", *([word] if word else [])],
        env={"PATH": str(tree / "programs"), "HOME": str(tree), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def program(tree: Path, name: str, said: str) -> None:
    """One that says this, whatever it is asked."""
    path = tree / "programs" / name
    path.write_text(f"#!{os.path.realpath(shutil.which('bash') or '/bin/bash')}\necho '{said}'\n")
    path.chmod(0o755)


def test_without_rust_warren_runs_on_aioquic(tree: Path) -> None:
    done = native(tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "== the native QUIC engine: not built, as there is no cargo (Rust 1.88 or newer); Warren runs on aioquic\n"
    )


def test_with_a_rust_that_is_too_old_it_says_which_it_needs(tree: Path) -> None:
    program(tree, "cargo", "cargo 1.63.0 (fd9c4297c 2022-07-01)")
    done = native(tree)
    assert done.returncode == 0
    assert "cargo is 1.63.0, and Rust 1.88 or newer is needed; Warren runs on aioquic" in done.stdout


def test_without_a_compiler_it_says_so(tree: Path) -> None:
    program(tree, "cargo", "cargo 1.88.0 (873a06493 2025-05-10)")
    assert "there is no C compiler (cc); Warren runs on aioquic" in native(tree).stdout


@pytest.mark.parametrize("word", ["", "controller"])
def test_where_it_must_be_there_it_fails(tree: Path, word: str) -> None:
    done = native(tree, word, WARREN_REQUIRE_NATIVE="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not built, as there is no cargo" in done.stderr


def test_an_unknown_word_is_refused(tree: Path) -> None:
    done = native(tree, "controler")
    assert done.returncode == 1 and "there is only controller" in done.stderr
