"""A process of its own that builds rule sets, for hosts whose event loop may not share an interpreter with that.

A thread that builds holds the interpreter for half a millisecond each time the loop waits for a system call: 10 µs of
a switch's work would take fifty times as long. The process is forked before there is a loop or a thread, since a rule
set is found by Python's own hashes of bytes, which only a fork has in common.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Final

import structlog

from warren.dnsfilter.refresh import Built, Copy, build

NICENESS: Final = 10
"""Of the building process: whatever else the host does comes first."""

log = structlog.get_logger()


class BuildProcess:
    """`with BuildProcess() as builder:` before any thread is started; it ends with the block, or with its parent.

    `prepare` is called in that process first: it may give up what it does not need.
    """

    def __init__(self, prepare: Callable[[], None] = lambda: None) -> None:
        self._prepare = prepare

    def __enter__(self) -> BuildProcess:
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe()
        self._one = threading.Lock()
        self._process = context.Process(
            target=_work, args=(theirs, self._ours, self._prepare), name="dns lists", daemon=True
        )
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ours.close()
        self._process.terminate()
        self._process.join()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def build(self, copies: Sequence[Copy]) -> Built:
        """Blocks until it is built: for a thread. In that thread itself, if the process is gone."""
        with self._one:
            try:
                self._ours.send(list(copies))
                built: Built | str = self._ours.recv()
            except (OSError, EOFError):
                log.warning("the process that builds lists is gone", code=self._process.exitcode)
                return build(copies)
        if isinstance(built, str):
            raise OSError(built)
        return built


def _work(jobs: Connection, parents: Connection, prepare: Callable[[], None]) -> None:
    """Until the parent closes its end, or is gone."""
    parents.close()
    for number in (signal.SIGINT, signal.SIGHUP):  # for the whole group; they are the parent's
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(NICENESS)
    prepare()
    gc.freeze()
    while True:
        try:
            copies: list[Copy] = jobs.recv()
        except (OSError, EOFError):
            return
        try:
            jobs.send(build(copies))
        except OSError as error:
            jobs.send(f"{Path(str(error.filename or '')).name}: {error.strerror}")
