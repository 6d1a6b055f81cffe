"""A wheel of this clone, and an environment with it; nothing is fetched, and the clone stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {
    **{name: name for name in ("agent", "cli", "connector", "dnsfilter", "edge", "fabric")},
    "netns-lab": "lab",
}
"""Folder of the clone → package below `warren`."""
_BESIDE = ("pyproject.toml", "README.md", "LICENSE", "src")
_CACHES = shutil.ignore_patterns("__pycache__", "*.egg-info")
_BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


def clean_environment() -> dict[str, str]:
    """Ours, but for what leads to the clone."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "WARREN"))}


def build(folder: Path) -> Path:
    """Builds it from a copy, by the build backend alone."""
    copy = folder / "clone"
    copy.mkdir()
    for name in (*FOLDERS, *_BESIDE):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=_CACHES)
        else:
            shutil.copy(ROOT / name, copy / name)
    return folder / _done([sys.executable, "-c", _BUILD, str(folder)], copy).splitlines()[-1]


def install(wheel: Path, environment: Path) -> Path:
    """Makes an environment that sees our dependencies, and Warren from the wheel; the folder with its commands."""
    venv.create(environment, with_pip=False, symlinks=True, clear=True)
    python = environment / "bin" / "python"
    site = _done([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], environment).strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ["-m", "pip", "--python", str(python), "install", "-q", "--no-index", "--no-deps", str(wheel)]
    _done([sys.executable, *words], environment)
    return environment / "bin"


def _done(words: list[str], where: Path) -> str:
    done = subprocess.run(words, cwd=where, env=clean_environment(), capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout
