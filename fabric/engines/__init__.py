"""QUIC engines: the only folder that imports a QUIC library."""

from __future__ import annotations

from warren.fabric.core.engine import Engine
from warren.fabric.core.errors import ConfigError

ENGINES = ("aioquic",)
"""Names that `engine` takes."""


def engine(name: str | None = None) -> Engine:
    """The engine called `name`, or the best one that is installed. Raises ConfigError for an unknown name."""
    if name is None or name == "aioquic":
        from warren.fabric.engines.aioquic import AioquicEngine

        return AioquicEngine()
    raise ConfigError(f"unknown QUIC engine {name!r}: allowed is {', '.join(ENGINES)}")
