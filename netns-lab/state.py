"""What is written down about labs while they are up, under /run, so that anybody can find and end them.

/run/warren-lab/NAME/lab.json         topology, and the process that holds the lab (none: it stays up by itself)
/run/warren-lab/NAME/hosts/HOST.json  the host's first process
/run/warren-lab/NAME/mounts/HOST/     where that host hangs its memory; empty from outside
/run/warren-lab/NAME/logs/            what started programs print
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

DIRECTORY = Path("/run/warren-lab")
ENDING = "hosts-ending"  # what the folder of records is called when the lab goes down
LAB_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class LabError(Exception):
    """The lab cannot do this; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for certain: a pid alone may be somebody else's by now."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Raises ProcessLookupError when there is none."""
        fields = _stat(pid)
        if fields is None:
            raise ProcessLookupError(pid)
        return cls(pid, int(fields[19]))

    def is_alive(self) -> bool:
        """False for a zombie, too: all that it held is gone."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in ("Z", "X")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (state) on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


@dataclass(frozen=True, slots=True)
class LabState:
    """The files of one lab."""

    name: str

    def __post_init__(self) -> None:
        if not LAB_NAME.fullmatch(self.name):
            raise LabError(f"lab name {self.name!r}: use lower-case letters, digits and hyphens, 32 at most")

    @property
    def directory(self) -> Path:
        return DIRECTORY / self.name

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    def record(self, host: str) -> Path:
        return self.directory / "hosts" / f"{host}.json"

    def mounts(self, host: str) -> Path:
        return self.directory / "mounts" / host

    def create(self, topology: str, hosts: list[str]) -> None:
        """Held by this process until `release`. Raises FileExistsError when a lab of that name is written down."""
        DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        self.directory.mkdir(mode=0o700)
        for folder in (self.record("x").parent, self.logs, *map(self.mounts, hosts)):
            folder.mkdir(parents=True)
        self._write(topology, asdict(ProcessId.of(os.getpid())))

    def release(self) -> None:
        """From now on the lab stays up after the process that made it."""
        self._write(self.topology(), None)

    def _write(self, topology: str, owner: dict[str, int] | None) -> None:
        new = self.directory / "lab.json.new"
        new.write_text(json.dumps({"topology": topology, "owner": owner}))
        new.rename(self.directory / "lab.json")

    def exists(self) -> bool:
        return self.directory.exists()

    def topology(self) -> str:
        return str(json.loads((self.directory / "lab.json").read_text())["topology"])

    def owner(self) -> ProcessId | None:
        """The process that holds the lab; None if it stays up by itself, or broke before it was written down."""
        try:
            owner = json.loads((self.directory / "lab.json").read_text())["owner"]
        except FileNotFoundError:
            return None
        return None if owner is None else ProcessId(**owner)

    def hosts(self) -> dict[str, ProcessId]:
        """The first process of each host that came into being."""
        records = [path for folder in ("hosts", ENDING) for path in sorted((self.directory / folder).glob("*.json"))]
        return {path.stem: ProcessId(**json.loads(path.read_text())) for path in records}

    def close(self) -> None:
        """No host can come into being any more: one in the making finds no place for its record, and ends."""
        with suppress(FileNotFoundError):
            (self.directory / "hosts").rename(self.directory / ENDING)

    def is_stale(self) -> bool:
        """Whoever made it has died, in the making or later, or one of its hosts has."""
        owner = self.owner()
        if not (self.directory / "lab.json").exists() or (owner is not None and not owner.is_alive()):
            return True
        return not all(host.is_alive() for host in self.hosts().values())

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        with suppress(OSError):  # other labs are up
            os.rmdir(DIRECTORY)


def all_labs() -> list[LabState]:
    """Every lab that has been written down on this machine."""
    if not DIRECTORY.exists():
        return []
    return [LabState(path.name) for path in sorted(DIRECTORY.iterdir()) if LAB_NAME.fullmatch(path.name)]
