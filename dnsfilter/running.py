"""Which process runs on a state directory, so that a command can tell it that something has changed."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from warren.fabric.core.errors import ConfigError

RUNNING: Final = "running"
"""Locked by the resolver, with its process id in it."""


@contextmanager
def running(state: Path) -> Iterator[None]:
    """Held while a resolver runs. ConfigError if another one does on the same directory."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state / RUNNING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"state: {state}: {error.strerror}; name a directory that can be written to") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"state: another resolver runs on {state}; give each a directory of its own") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def wake(state: Path) -> bool:
    """Ask the resolver that runs there to read its policy anew; whether there is one."""
    try:
        descriptor = os.open(state / RUNNING, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.kill(int(os.read(descriptor, 20)), signal.SIGHUP)
            return True
        return False
    except PermissionError:
        raise ConfigError(f"the resolver on {state} is somebody else's: it has to be told by SIGHUP") from None
    except (ValueError, ProcessLookupError):
        return False
    finally:
        os.close(descriptor)
