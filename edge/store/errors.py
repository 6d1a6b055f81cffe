"""What can be wrong with a change that somebody asks of the store. Each text is one line for the administrator."""

from __future__ import annotations

from warren.fabric.core.errors import ConfigError


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
