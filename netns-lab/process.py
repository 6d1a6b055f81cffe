"""A program that was started in a lab's host and goes on beside the test or the demo."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from warren.lab.waiting import wait_until

TAIL_LINES = 30  # of a log, in an error's text


class Process:
    """`pid` is the program's own, as seen from outside. Used with `with`, it is stopped at the end.

    `begin`: bytes of the log that were there before it, of another program.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], argv: Sequence[str], host: str, log: Path, begin: int = 0
    ) -> None:
        self._popen = popen
        self.argv = list(argv)
        self.host = host
        self.log = log
        self._begin = begin

    def __repr__(self) -> str:
        return f"<{' '.join(self.argv)} on {self.host}, pid {self.pid}, returned {self.returncode}>"

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number if one ended it."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this program alone, not to its children. Nothing happens if it has ended."""
        self._popen.send_signal(number)

    def stop(self, timeout: float = 5.0) -> int:
        """SIGTERM, after `timeout` seconds SIGKILL; its return code."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except TimeoutError:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL; its return code."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def wait(self, timeout: float = 10.0) -> int:
        """Its return code; TimeoutError, with the end of its log, if it still runs after `timeout` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self!r} still runs after {timeout:g} s\n{self.tail()}") from None

    def output(self) -> str:
        """All it has printed so far, standard output and error."""
        return self.log.read_bytes()[self._begin :].decode(errors="replace")

    def tail(self) -> str:
        return "\n".join(self.output().splitlines()[-TAIL_LINES:])

    def wait_for_output(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """The first match of a regular expression (lines: re.MULTILINE) in what it prints.

        Raises RuntimeError if the program ends without it, TimeoutError after `timeout` seconds; both with its log.
        """

        def look() -> re.Match[str] | None:
            ended = not self.running
            match = re.search(pattern, self.output(), re.MULTILINE)
            if match is None and ended:
                raise RuntimeError(f"{self!r} ended without printing {pattern!r}\n{self.tail()}")
            return match

        try:
            found = wait_until(look, pattern, timeout)
        except TimeoutError:
            raise TimeoutError(f"{self!r} has not printed {pattern!r} in {timeout:g} s\n{self.tail()}") from None
        assert found is not None
        return found
