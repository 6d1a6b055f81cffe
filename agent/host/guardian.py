"""The guardian: a child process that undoes the agent's changes to the host when the agent dies, also by SIGKILL.

It holds the reading end of a pipe whose other end only the agent has. End of file without a word: the agent died, so
the journal is replayed. One byte first: the agent undid everything itself. It has a session of its own and ignores the
signals by which an agent is stopped; while it lives it holds the journal's lock.

A service manager must not kill it with the agent (systemd: `KillMode=process`); if one does, the next start of the
agent undoes what is left over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from warren.agent.host.journal import Journal, replay
from warren.agent.host.undo import UNDOERS
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.privileges import keep_only, to_write_in

KEPT = ("CAP_NET_ADMIN", "CAP_CHOWN", "CAP_FOWNER")
"""Capabilities of agent and guardian after the start: routes, rules, marks; resolv.conf goes back to its owner."""
START_WAIT_S = 20.0
"""For a child that imports four small modules; only a machine that is out of memory takes so long."""

_MODULE = "warren.agent.host.guardian"
_READY, _DISMISSED = b"r", b"d"
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)


class Guardian:
    """The agent's end. Start it before the first change to the host."""

    def __init__(self, process: subprocess.Popen[bytes], writer: int) -> None:
        self.process = process
        self._writer = writer

    @classmethod
    def start(cls, journal: Journal) -> Self:
        """Start it and wait until it watches (0.1 s). `ConfigError` if it does not."""
        reader, writer = os.pipe()  # not inheritable: the writing end is nobody's but ours
        command = [sys.executable, "-m", _MODULE, str(journal.path.absolute())]
        try:
            process = subprocess.Popen(
                command,
                stdin=reader,
                stdout=subprocess.PIPE,
                pass_fds=(journal.lock,),
                start_new_session=True,
            )
        finally:
            os.close(reader)
        guardian = cls(process, writer)
        if not guardian._is_ready():
            os.close(writer)
            process.kill()
            process.wait()
            raise ConfigError(
                "the guardian that undoes changes after a crash could not be started; see its output above"
            )
        return guardian

    def _is_ready(self) -> bool:
        import select

        out = self.process.stdout
        assert out is not None
        with out:
            readable, _, _ = select.select([out], [], [], START_WAIT_S)
            return bool(readable) and os.read(out.fileno(), 1) == _READY

    def dismiss(self) -> None:
        """The agent has undone everything itself: end the guardian and wait for it."""
        with contextlib.suppress(OSError):
            os.write(self._writer, _DISMISSED)
        os.close(self._writer)
        self.process.wait()


def watch(journal: Path, pipe: int = 0) -> int:
    """The guardian's life; the exit status: 0 if nothing of the agent's is left on the host."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    keep_only((*KEPT, *to_write_in(journal.parent)))
    os.chdir("/")
    os.write(1, _READY)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    if os.read(pipe, 1) == _DISMISSED:
        return 0
    done = replay(journal, UNDOERS)
    for note in done.notes:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"warren guardian: {note}\n")
    return 1 if done.kept else 0


if __name__ == "__main__":
    sys.exit(watch(Path(sys.argv[1])))
