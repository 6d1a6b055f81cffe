"""Real programs that use the office all the while: ssh, scp, psql, ping, iperf3."""

from __future__ import annotations

import hashlib
import os
import re
import select
import signal
import subprocess
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.chaos.apps import LOOK_UP_AFTER, App, Lost, NotOpened
from tests.lab import apps
from warren.lab.host import Host, environment
from warren.lab.services import DATABASE, DATABASE_PASSWORD, DATABASE_USER, IPERF_PORT, POSTGRES_PORT, SSH_PORT

EVERY = 0.1
"""Seconds between two lines, two transactions."""
PINGS_EVERY = 0.2
FILE = apps.pattern(3 << 20, seed=66)
IPERF_RATE = "4M"
KILOBITS = "12000"
"""What scp may take of the line a second."""
THERE = "/tmp/chaos-copy"
SSH_OPTIONS = ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=0"]


class Program(App):
    """One process of the laptop, its output read line by line."""

    argv: list[str]

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """With its own process group, which ends with it."""
        with subprocess.Popen(
            self.laptop.argv(self.argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment({"PGPASSWORD": DATABASE_PASSWORD}),
            start_new_session=True,
            bufsize=0,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def lines(self, process: subprocess.Popen[bytes]) -> Iterator[str]:
        """Until it is `done`. Raises Lost, with the last that was said, when the program ends before."""
        assert process.stdout is not None
        descriptor, rest, last = process.stdout.fileno(), b"", "ended"
        while not self.done:
            if not select.select([descriptor], [], [], LOOK_UP_AFTER)[0]:
                continue
            got = os.read(descriptor, 1 << 16)
            if not got:
                raise Lost(last)
            *whole, rest = (rest + got).split(b"\n")
            for line in whole:
                last = line.decode(errors="replace").strip() or last
                yield last


class Dialogue(Program):
    """Says something, waits for the answer, and again."""

    def __init__(self, name: str, laptop: Host, destination: str) -> None:
        super().__init__(name, laptop, destination)
        self.number = 0

    @abstractmethod
    def question(self) -> str:
        """What is said, without the end of the line."""

    @abstractmethod
    def answer(self) -> str: ...

    def answered(self) -> None:
        """The answer has come."""
        self.track.mark()

    def session(self) -> None:
        with self.running() as process:
            lines = self.lines(process)
            self._ask(process)
            try:
                self._listen(lines)
            except Lost as error:
                raise NotOpened(str(error)) from None
            self.track.opened()
            while not self.done:
                self.over.wait(EVERY)
                self._ask(process)
                self._listen(lines)

    def _ask(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self.number += 1
        with suppress(BrokenPipeError):  # its output tells more
            process.stdin.write(f"{self.question()}\n".encode())

    def _listen(self, lines: Iterator[str]) -> None:
        for line in lines:
            if line == self.answer():
                return self.answered()
            if "error" in line.lower():
                self.track.spoil(1)


class Shell(Dialogue):
    """An ssh session in which each line comes back."""

    def __init__(self, laptop: Host, server: Host) -> None:
        super().__init__("ssh", laptop, f"{server.address}:{SSH_PORT}")
        self.argv = ["ssh", "-T", *SSH_OPTIONS, f"root@{server.address}", "cat"]

    def question(self) -> str:
        return f"line {self.number} of {'a session that lasts ' * 4}".strip()

    answer = question


class Transactions(Dialogue):
    """Each moves one from here to there, in two tables; the server must have both halves or none."""

    def __init__(self, laptop: Host, server: Host) -> None:
        super().__init__("PostgreSQL", laptop, f"{server.address}:{POSTGRES_PORT}")
        self._server = server
        self.confirmed: list[int] = []
        self.argv = ["psql", "-qAtX", "-h", server.address, "-U", DATABASE_USER, DATABASE]
        self._select("CREATE TABLE here (n bigint); CREATE TABLE there (n bigint)")

    def question(self) -> str:
        n = self.number
        return f"BEGIN; INSERT INTO here VALUES ({n}); INSERT INTO there VALUES ({n}); COMMIT;\n\\echo {self.answer()}"

    def answer(self) -> str:
        return f"moved {self.number}"

    def answered(self) -> None:
        self.confirmed.append(self.number)
        super().answered()

    def account(self) -> dict[str, int]:
        """What the server has, against what it has confirmed."""
        here, there = ([int(n) for n in self._select(f"SELECT n FROM {table}").split()] for table in ("here", "there"))
        return {
            "confirmed": len(self.confirmed),
            "stored": len(here),
            "half done": len(set(here) ^ set(there)),
            "done twice": len(here) + len(there) - len(set(here)) - len(set(there)),
            "confirmed and missing": len(set(self.confirmed) - set(here)),
        }

    def _select(self, words: str) -> str:
        psql = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", "/run/postgresql", "-U", DATABASE_USER, DATABASE]
        return self._server.run([*psql, "-c", words]).stdout


class Ping(Program):
    """Echo requests; each reply's payload is checked by ping itself."""

    def __init__(self, laptop: Host, server: Host) -> None:
        super().__init__("ping", laptop, f"{server.address}/icmp")
        self.argv = ["ping", "-O", "-p", "77617272656e", "-i", f"{PINGS_EVERY}", server.address]

    def session(self) -> None:
        last = 0
        with self.running() as process:
            self.track.opened()
            for line in self.lines(process):
                found = re.search(r"bytes from .*icmp_seq=(\d+)", line)
                if found is None:
                    continue
                now, number = time.monotonic(), int(found[1])
                self.track.mark()
                if "wrong data" in line or "DUP" in line:
                    self.track.spoil(1)
                self.track.sent.extend(now - PINGS_EVERY * (number - n) for n in range(last + 1, number + 1))
                self.track.missing.extend(now - PINGS_EVERY * (number - n) for n in range(last + 1, number))
                last = max(last, number)


class Iperf(Program):
    """Bytes from the office at a steady rate, each tenth of a second that has some a mark."""

    def __init__(self, laptop: Host, server: Host) -> None:
        super().__init__("iperf3", laptop, f"{server.address}:{IPERF_PORT}")
        rate = ["--reverse", "--bitrate", IPERF_RATE, "--interval", f"{EVERY}", "--time", "86400", "--forceflush"]
        self.argv = ["iperf3", "--client", server.address, *rate]

    def session(self) -> None:
        went_on = False
        with self.running() as process:
            try:
                for line in self.lines(process):
                    found = re.search(r"sec +([\d.]+) [KMG]?Bytes", line)
                    if found is not None and float(found[1]):
                        (self.track.mark if went_on else self.track.opened)()
                        went_on = True
            except Lost as error:
                if went_on:
                    raise
                raise NotOpened(str(error)) from None


class Copies(Program):
    """scp of one file after another, slowly, each with its checksum."""

    def __init__(self, laptop: Host, server: Host) -> None:
        super().__init__("scp", laptop, f"{server.address}:{SSH_PORT}")
        self._there = server.path(THERE)
        self._digest = hashlib.sha256(FILE).digest()
        laptop.write("/tmp/chaos-file", FILE)
        self.argv = ["scp", "-l", KILOBITS, *SSH_OPTIONS, "/tmp/chaos-file", f"root@{server.address}:{THERE}"]
        self.copied = 0

    def session(self) -> None:
        self._there.unlink(missing_ok=True)
        with self.running() as process:
            size = 0
            while process.poll() is None:
                if self.done:
                    return
                size = self._grown(size)
                self.over.wait(EVERY / 2)
            self._grown(size)
            if process.returncode:
                assert process.stdout is not None
                said = process.stdout.read().decode(errors="replace").strip().splitlines()
                raise (Lost if size else NotOpened)(said[-1] if said else f"returned {process.returncode}")
        if hashlib.sha256(self._there.read_bytes()).digest() != self._digest:
            self.track.spoil(len(FILE))
        self.copied += 1

    def _grown(self, before: int) -> int:
        with suppress(FileNotFoundError):
            size = self._there.stat().st_size
            if size > before:
                (self.track.mark if before else self.track.opened)()
            return size
        return before
