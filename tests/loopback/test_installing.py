"""The wheel holds all of Warren, and what is installed from it works without the clone."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.wheel import FOLDERS, ROOT, build, clean_environment, install


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("fresh") / "venv")


def test_every_file_is_in_the_wheel(wheel: Path) -> None:
    wanted = {"warren/__init__.py", "warren/py.typed"}
    for folder, package in FOLDERS.items():
        files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
        wanted |= {f"warren/{package}/{path.relative_to(ROOT / folder)}" for path in files}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == wanted


def test_what_is_installed_works_without_the_clone(commands: Path, tmp_path: Path) -> None:
    def run(program: str, *words: str) -> str:
        argv = [str(commands / program), *words]
        done = subprocess.run(
            argv, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    helped = run("warren", "--help")
    assert all(part in helped for part in ("agent", "connector", "edge", "tunnel", "route", "device", "dns"))
    assert run("warren", "version").startswith("warren 0.")
    state = ["--state-dir", str(tmp_path / "edge"), "--admin-dir", str(tmp_path / "admin")]
    assert "Open that port" in run("warren", "edge", "init", "--public", "192.0.2.1", "--name", "first", *state)
    assert str(ROOT) not in run("python", "-c", "import warren.edge, warren.lab; print(warren.edge, warren.lab)")
    assert f"ExecStart={commands / 'python'}" in run("warren", "edge", "service", "install", "--print")
