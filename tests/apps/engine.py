"""A container engine of a test's own: podman with its storage in one folder, which goes with the test.

Commands are given as for docker, as the documents have them. What this machine lacks is put in between: a registry of
images (the base image is made of Debian's packages), systemd, and networks other than those of the lab.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from warren.lab import wait_until

PROGRAMS = ("podman", "runc", "mmdebstrap")
"""Debian's packages of the same names."""
BASE = "docker.io/library/python:3.13-slim"
SUITE = "trixie"
"""The Debian that has the base image's Python."""
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Whom this machine believes: the build fetches its packages the way this machine does."""
GROUPS = Path("/sys/fs/cgroup")
PROCESSES = 32_768
"""What podman bounds its own processes to; a container can't have more."""
MINUTES_10 = 600.0


class Engine:
    """`with Engine() as engine: engine(["docker", "build", ...])`; needs root."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="warren-images-"))
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = min(resource.getrlimit(resource.RLIMIT_NPROC)[1], PROCESSES)
        if processes < 0:
            processes = PROCESSES
        self._limits = [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={processes}:{processes}"]
        self._podman = ["podman", "--runtime", "runc", "--root", f"{self.folder}/storage", "--runroot"]
        self._podman += [f"{self.folder}/run", "--tmpdir", f"{self.folder}/tmp", "--storage-driver", "overlay"]
        self._podman += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]

    def __enter__(self) -> Engine:
        try:
            self._make_base()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __call__(
        self,
        words: Sequence[str],
        *,
        network: str = "none",
        check: bool = True,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """`docker …`, with podman; what podman itself logs is taken out of its standard error."""
        docker, command, *rest = words
        assert docker == "docker"
        more: list[str] = []
        if command == "build":  # podman's own format knows no health check
            more = ["--isolation", "chroot", "--format", "docker"]
            more += [f"--volume={AUTHORITIES}:{AUTHORITIES}:ro"] if AUTHORITIES.exists() else []
        elif command == "run":  # without systemd nobody would call health checks: `healthcheck run` does
            more = [*self._limits, f"--cgroup-parent=/{self.folder.name}", "--health-interval=disable"]
            more += [f"--network={network}"]
            more += ["--read-only-tmpfs=false"] if "--read-only" in rest else []  # docker mounts nothing by itself
        done = subprocess.run(
            [*self._podman, command, *more, *rest], cwd=cwd, capture_output=True, text=True, timeout=MINUTES_10
        )
        said = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("time=")]
        done = subprocess.CompletedProcess(list(words), done.returncode, done.stdout, "".join(said))
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
        return done

    def close(self) -> None:
        """Containers, volumes, images and mounts; then the folder."""
        for words in (("rm", "-fa", "-t", "0"), ("volume", "rm", "-fa"), ("image", "rm", "-fa")):
            subprocess.run([*self._podman, *words], capture_output=True, timeout=MINUTES_10)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([each for each in mounts if each.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "-l", mount], check=True)
        shutil.rmtree(self.folder)
        wait_until(self._no_groups, f"the end of what ran in {self.folder.name}", 30)

    def _no_groups(self) -> bool:
        """Control groups of ours: the kernel keeps one until its last process has ended."""
        ours = [*GROUPS.glob(self.folder.name), *GROUPS.glob(f"*/{self.folder.name}")]
        for group in [each for top in ours for each in reversed([top, *top.glob("**/")])]:
            with suppress(OSError):
                group.rmdir()
        return not any(group.exists() for group in ours)

    def _make_base(self) -> None:
        """A Debian with Python and pip, under the name that the Dockerfile begins from."""
        archive = self.folder / "base.tar"
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(archive)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=MINUTES_10)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}\n{done.stderr}")
        self(["docker", "import", str(archive), BASE])
        archive.unlink()
