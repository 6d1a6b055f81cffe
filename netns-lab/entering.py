"""Ways into a host's namespaces, from the process that holds the lab."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter_all(pid: int) -> list[str]:
    """The start of a command line that runs the rest in every namespace of `pid`, as a child."""
    return ["nsenter", f"--target={pid}", "--pid", *_ENTERED]


def enter_all_but_processes(pid: int) -> list[str]:
    """The same without a process between: for use within `in_processes_of`."""
    return ["nsenter", f"--target={pid}", *_ENTERED]


def enter_network(pid: int) -> list[str]:
    """The rest of the command line runs with the network of `pid`, and is otherwise outside."""
    return ["nsenter", f"--target={pid}", "--net"]


_ENTERED: Sequence[str] = ("--mount", "--uts", "--ipc", "--net", "--root", "--wd", "--")


@contextmanager
def in_processes_of(pid: int) -> Iterator[None]:
    """Processes that this thread starts meanwhile are born into the PID namespace of `pid`.

    They are this process's own children all the same: their pid, signals and return codes are the real ones.
    """
    with _namespace_of_thread("pid", CLONE_NEWPID, pid):
        yield


@contextmanager
def in_network_of(pid: int) -> Iterator[None]:
    """Sockets that this thread makes meanwhile belong to the network of `pid`, and stay there afterwards."""
    with _namespace_of_thread("net", CLONE_NEWNET, pid):
        yield


@contextmanager
def _namespace_of_thread(kind: str, flag: int, pid: int) -> Iterator[None]:
    ours = os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(theirs, flag)
        finally:
            os.close(theirs)
        try:
            yield
        finally:
            _setns(ours, flag)
    finally:
        os.close(ours)


def _setns(fd: int, flag: int) -> None:
    if _libc.setns(fd, flag) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
