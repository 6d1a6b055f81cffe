"""Logs, set up once for a process: one line an event on standard error."""

from __future__ import annotations

import logging
import sys

import structlog

from warren.fabric.core.errors import ConfigError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


FORMATS = ("text", "json")


def set_up(level: str = "info", form: str = "text") -> None:
    """`form`: one of FORMATS. Raises ConfigError for an unknown level or format."""
    if form not in FORMATS:
        raise ConfigError(f"--log-format {form}: use one of {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise ConfigError(f"--log-level {level}: use one of {', '.join(LEVELS)}")
    colours = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=colours),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
