"""Logs, set up once for a process: one line an event, on standard error or in a file that may be rotated."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, TextIO

import structlog

from warren.fabric.core.errors import ConfigError
from warren.fabric.core.printable import printable

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


FORMATS = ("text", "json")
FILE_MODE = 0o640


class LogFile:
    """A log in a file. A full disk loses lines, and disturbs nobody."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError."""
        self.path = path.absolute()
        self.lost = 0
        """Lines that could not be written."""
        try:
            self._file = self._open()
        except OSError as error:
            raise ConfigError(f"--log-file {path}: it can't be written: {error.strerror}") from None

    def _open(self) -> TextIO:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        return open(descriptor, "w", encoding="utf-8", errors="backslashreplace")

    def write(self, text: str) -> int:
        try:
            return self._file.write(text)
        except OSError:
            self.lost += 1
            return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def reopen(self) -> None:
        """After the file was renamed. If it can't be opened, the old one goes on."""
        try:
            fresh = self._open()
        except OSError as error:
            structlog.get_logger().error("the log file can't be opened anew", error=error.strerror)
            return
        before, self._file = self._file, fresh
        with contextlib.suppress(OSError):
            before.close()

    def isatty(self) -> bool:
        return False


class Library(logging.Handler):
    """What libraries say by way of `logging` becomes lines like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, record.getMessage(), library=record.name, exc_info=record.exc_info)


_library = Library(logging.WARNING)
_file: LogFile | None = None


def set_up(level: str = "info", form: str = "text", file: Path | None = None) -> None:
    """`form`: one of FORMATS. `file`: None for standard error. Raises ConfigError: unknown level, format; the file."""
    global _file
    if form not in FORMATS:
        raise ConfigError(f"--log-format {form}: use one of {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise ConfigError(f"--log-level {level}: use one of {', '.join(LEVELS)}")
    _file = LogFile(file) if file is not None else None
    target: Any = _file or sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            *_renderers(form, target.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(target),
    )
    logging.getLogger().addHandler(_library)


def reset() -> None:
    """As before `set_up`."""
    logging.getLogger().removeHandler(_library)
    structlog.reset_defaults()


def on_hangup(
    loop: asyncio.AbstractEventLoop, otherwise: Callable[[], None], reread: Callable[[], None] | None = None
) -> None:
    """SIGHUP opens the log file anew; where there is none it is a terminal that was closed, and `otherwise` is done.

    `reread`: what else is read again. A daemon that has such does `otherwise` only if its terminal is gone indeed.
    """
    terminals = [descriptor for descriptor in range(3) if os.isatty(descriptor)]

    def hung_up() -> None:
        if _file is not None:
            _file.reopen()
        elif reread is None or not all(os.isatty(descriptor) for descriptor in terminals):
            otherwise()
            return
        if reread is not None:
            reread()

    loop.add_signal_handler(signal.SIGHUP, hung_up)


def _renderers(form: str, colours: bool) -> list[Any]:
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # not the usual tracebacks: they show local variables, and those may be keys
    return [_one_line, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _one_line(logger: object, method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What a peer has sent makes no line of its own, and moves no cursor."""
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = printable(value)
    return fields
