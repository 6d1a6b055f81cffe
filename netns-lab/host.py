"""One host of a lab that is up: run programs in it, start them, read and write its files, open sockets in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from warren.lab.entering import enter_all, enter_all_but_processes, in_network_of, in_processes_of
from warren.lab.process import Process
from warren.lab.topology import HostSpec
from warren.lab.waiting import wait_until

Argument = str | Path
PASSED_ON = (
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX",
    "WARREN_ENGINE",
    "TERM",
    "COLUMNS",
)  # of our environment; all else is made anew
TCP_LISTEN = "0A"  # of /proc/net/tcp
AFTER_KILL = 5.0  # seconds to gather what a killed command printed


class CommandError(Exception):
    """A command failed or took too long; the text holds what it printed. `result` is None if it took too long."""

    def __init__(self, text: str, result: subprocess.CompletedProcess[str] | None = None) -> None:
        super().__init__(text)
        self.result = result


class Host:
    """`pid`: the host's first process, as seen from outside."""

    def __init__(self, spec: HostSpec, pid: int, logs: Path) -> None:
        self.spec = spec
        self.pid = pid
        self.processes: list[Process] = []
        self._logs = logs

    def __repr__(self) -> str:
        return f"<host {self.name}, pid {self.pid}>"

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def address(self) -> str:
        """Its first IPv4 address."""
        return self.spec.address

    def run(
        self,
        argv: Sequence[Argument],
        *,
        check: bool = True,
        timeout: float = 30.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; standard input is `input` or empty.

        Raises CommandError when it returns something else than 0 and `check` is set, and after `timeout` seconds,
        when it and its process group have been killed.
        """
        words = _words(argv, user)
        with in_processes_of(self.pid):
            popen = subprocess.Popen(
                [*enter_all_but_processes(self.pid), *words],
                stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(env),
                start_new_session=True,
                text=True,
                errors="replace",
            )
        try:
            out, err = popen.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            out, err = _kill_group(popen)
            raise CommandError(f"{self.name}: {' '.join(words)} took more than {timeout:g} s\n{out}{err}") from None
        except BaseException:
            _kill_group(popen)
            raise
        result = subprocess.CompletedProcess(words, popen.returncode, out, err)
        if check and result.returncode != 0:
            raise CommandError(f"{self.name}: {' '.join(words)} returned {result.returncode}\n{out}{err}", result)
        return result

    def start(
        self,
        argv: Sequence[Argument],
        *,
        log: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Process:
        """Start a program that goes on until it is stopped or the lab goes down, even if we die before.

        It prints into `log`: a name (of the lab's logs) or a path; by default HOST-PROGRAM-NUMBER.
        """
        words = _words(argv, user)
        if log is None:
            log = f"{self.name}-{Path(words[0]).name}-{len(self.processes)}"
        path = log if isinstance(log, Path) else self._logs / f"{log}.log"
        with open(path, "ab") as output, in_processes_of(self.pid):
            begin = output.tell()
            popen = subprocess.Popen(
                [*enter_all_but_processes(self.pid), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(env),
                start_new_session=True,
            )
        process = Process(popen, words, self.name, path, begin)
        self.processes.append(process)
        return process

    def python(
        self, source: str, *arguments: str, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run Python source (`sys.argv[1:]` are the arguments) with our own interpreter."""
        return self.run([sys.executable, "-c", source, *arguments], check=check, timeout=timeout)

    def argv(self, argv: Sequence[Argument], *, user: str | None = None) -> list[str]:
        """The command line that runs `argv` in this host, for whoever starts processes in another way.

        What it starts is a child of the pid that the caller sees; killing that one does not kill the child.
        """
        return [*enter_all(self.pid), *_words(argv, user)]

    def network(self) -> AbstractContextManager[None]:
        """Within it, sockets that this thread makes belong to this host's network, and stay so. Nothing to await in."""
        return in_network_of(self.pid)

    def path(self, path: Argument) -> Path:
        """A file of this host, as a path outside. `path` is absolute and passes through no symbolic link."""
        return Path(f"/proc/{self.pid}/root") / str(path).lstrip("/")

    def read(self, path: Argument) -> str:
        return self.path(path).read_text()

    def write(self, path: Argument, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file, making the folders above it. It has its mode before it has its content."""
        outside = self.path(path)
        outside.parent.mkdir(parents=True, exist_ok=True)
        outside.unlink(missing_ok=True)
        fd = os.open(outside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content.encode() if isinstance(content, str) else content)

    def namespace(self, kind: str) -> Path:
        """The file of one of its namespaces: net, mnt, uts, ipc or pid."""
        return Path(f"/proc/{self.pid}/ns/{kind}")

    def is_listening(self, port: int) -> bool:
        """Does any TCP socket of the host listen on this port?"""
        tables = (Path(f"/proc/{self.pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
        rows = (line.split() for table in tables for line in table)
        return any(row[3] == TCP_LISTEN and int(row[1].rpartition(":")[2], 16) == port for row in rows)

    def wait_for_listener(self, port: int, process: Process | None = None, timeout: float = 10.0) -> None:
        """Until a TCP port is listened on; RuntimeError, with its log, when `process` ends before that."""

        def listening() -> bool:
            if process is not None and not process.running:
                raise RuntimeError(f"{process!r} ended before it listened\n{process.tail()}")
            return self.is_listening(port)

        wait_until(listening, f"a listener on port {port} of {self.name}", timeout)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What programs in a host have for an environment: little of ours, so that no proxy or locale comes along."""
    ours = str(Path(sys.executable).parent)
    made = {
        "PATH": f"{ours}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "USER": "root",
        "LANG": "C.UTF-8",
    }
    return {**made, **{key: os.environ[key] for key in PASSED_ON if key in os.environ}, **(more or {})}


def _words(argv: Sequence[Argument], user: str | None) -> list[str]:
    words = [str(word) for word in argv]
    if user is None:
        return words
    if not re.fullmatch(r"[a-z_][a-z0-9_-]*", user):
        raise ValueError(f"user {user!r}")
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *words]


def _kill_group(popen: subprocess.Popen[str]) -> tuple[str, str]:
    with suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
    try:
        return popen.communicate(timeout=AFTER_KILL)
    except subprocess.TimeoutExpired:
        return "", "(something that it left behind holds its output open)"
