"""A PostgreSQL server of the tests' own: in its own directory, on a Unix socket, as an unprivileged user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_SECONDS = 120.0
"""For initdb and the server's start on a busy machine."""


def programs() -> Path | None:
    """Where initdb and postgres are: Debian keeps them out of the PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    elsewhere = shutil.which("initdb")
    return found[-1].parent if found else Path(elsewhere).resolve().parent if elsewhere else None


class Server:
    """A running server; each `new_database` is empty. `stop` and `start` it as often as a test needs."""

    def __init__(self, programs: Path, place: Path, user: str | None) -> None:
        self.place = place
        self._programs = programs
        self._user = user
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", "-U", "warren", "-D", "data")

    def new_database(self) -> str:
        """Its URL, as the edge's settings have it."""
        self._count += 1
        name = f"t{self._count}"
        self._run("createdb", "-h", str(self.place), "-U", "warren", name)
        return f"postgresql+asyncpg://warren@/{name}?host={self.place}"

    def start(self) -> None:
        options = {"listen_addresses": "", "fsync": "off", "shared_buffers": "16MB", "max_connections": "60"}
        argv = [str(self._programs / "postgres"), "-D", "data", "-k", str(self.place)]
        argv += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, cwd=self.place, user=self._user, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while self._run("pg_isready", "-q", "-h", str(self.place), check=False) != 0:
            assert self._process.poll() is None, (self.place / "log").read_text()
            assert time.monotonic() < until, "PostgreSQL does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """At once: connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)
            self._process = None

    def _run(self, program: str, *words: str, check: bool = True) -> int:
        done = subprocess.run(
            [str(self._programs / program), *words],
            cwd=self.place,
            user=self._user,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.returncode


@contextmanager
def server() -> Iterator[Server]:
    """Skips the test where PostgreSQL is not installed, unless WARREN_REQUIRE_LAB says that it must run."""
    found = programs()
    user = ("postgres" if _exists("postgres") else "nobody") if os.geteuid() == 0 else None
    if found is None:
        if os.environ.get("WARREN_REQUIRE_LAB"):
            pytest.fail("PostgreSQL is not installed: run tools/bootstrap.sh")
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="warren-pg-", dir="/tmp") as place:
        if user is not None:
            shutil.chown(place, user)
        made = Server(found, Path(place), user)
        try:
            made.start()
            yield made
        finally:
            made.stop()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
