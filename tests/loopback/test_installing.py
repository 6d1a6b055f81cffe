"""The wheel holds all of Warren, and what is installed from it works without the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    **{name: name for name in ("agent", "cli", "connector", "dnsfilter", "edge", "fabric")},
    "netns-lab": "lab",
}
BESIDE = ("pyproject.toml", "README.md", "LICENSE", "src")
CACHES = shutil.ignore_patterns("__pycache__", "*.egg-info")
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the clone stays as it is; by the backend alone, which fetches nothing."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "clone"
    copy.mkdir()
    for name in (*FOLDERS, *BESIDE):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=CACHES)
        else:
            shutil.copy(ROOT / name, copy / name)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=copy, env=clean(), capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / built.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def bin_(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of a fresh environment are. Of ours it sees the dependencies, and not Warren itself."""
    fresh = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(fresh, with_pip=False, symlinks=True)
    python = fresh / "bin" / "python"
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True, env=clean(),
    ).stdout.strip()  # fmt: skip
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index", "--no-deps"]
    done = subprocess.run([*words, str(wheel)], capture_output=True, text=True, timeout=120, env=clean())
    assert done.returncode == 0, done.stdout + done.stderr
    return fresh / "bin"


def clean() -> dict[str, str]:
    """Nothing that leads to the clone."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "WARREN"))}


def test_every_file_is_in_the_wheel(wheel: Path) -> None:
    wanted = {"warren/__init__.py", "warren/py.typed"}
    for folder, package in FOLDERS.items():
        files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
        wanted |= {f"warren/{package}/{path.relative_to(ROOT / folder)}" for path in files}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == wanted


def test_what_is_installed_works_without_the_clone(bin_: Path, tmp_path: Path) -> None:
    def warren(*words: str) -> str:
        done = subprocess.run(
            [str(bin_ / "warren"), *words], cwd=tmp_path, env=clean(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    helped = warren("--help")
    assert all(part in helped for part in ("agent", "connector", "edge", "tunnel", "route", "device", "dns"))
    assert warren("version").startswith("warren 0.")
    state = ["--state-dir", str(tmp_path / "edge"), "--admin-dir", str(tmp_path / "admin")]
    assert "Open that port" in warren("edge", "init", "--public", "192.0.2.1", "--name", "first", *state)
    where = subprocess.run(
        [str(bin_ / "python"), "-c", "import warren.edge, warren.lab; print(warren.edge, warren.lab)"],
        cwd=tmp_path, env=clean(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(ROOT) not in where.stdout
    assert f"ExecStart={bin_ / 'python'}" in warren("edge", "service", "install", "--print")
