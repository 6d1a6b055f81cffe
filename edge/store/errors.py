"""What can be wrong with a change that somebody asks of the store. Each text is one line for the administrator."""

from __future__ import annotations

import re

from warren.fabric.core.errors import ConfigError

_CLASS = re.compile(r"^<class '[^']*'>: ")  # what SQLAlchemy puts in front of asyncpg's words


class StoreError(ConfigError):
    """A change that was not made. `word`: for programs; the text: for people."""

    word = "invalid"


class InvalidError(StoreError):
    """A value is malformed or not allowed."""


class NotFoundError(StoreError):
    """Nothing has that id or name."""

    word = "not_found"


class ExistsError(StoreError):
    """Something else has that name, id or place already."""

    word = "exists"


class InUseError(StoreError):
    """Something still leads to what should be deleted."""

    word = "in_use"


class LimitError(StoreError):
    """The table is full."""

    word = "limit"


class AwayError(ConfigError):
    """The database can't be reached now. `cause`: what it, or the network, says."""

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(text)
        self.cause = cause


def cause_of(error: Exception) -> str:
    """What a database or its driver said, on one line."""
    said = getattr(error, "orig", None) or error
    if isinstance(said, TimeoutError):
        return "no answer in time"
    lines = str(said).splitlines() or [type(said).__name__]
    return _CLASS.sub("", lines[0])[:200]
