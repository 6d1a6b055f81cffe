"""QUIC engines: the only folder that imports a QUIC library. Here one is chosen."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple, get_args

from warren.fabric.core.engine import Controller, Engine
from warren.fabric.core.errors import ConfigError

EngineName = Literal["auto", "native", "aioquic"]
"""What the setting `engine` takes. auto: native where it is installed, aioquic where it is not."""
VARIABLE = "WARREN_ENGINE"
"""Of the environment; counts where the setting says auto."""


class Chosen(NamedTuple):
    """An engine, and why this one: for the log."""

    engine: Engine
    why: str

    def words(self) -> dict[str, str]:
        """What a daemon says once, when it starts."""
        return {"engine": self.engine.name, "controller": self.engine.controller, "why": self.why}


def engine(name: EngineName | None = None, controller: Controller = "warren") -> Engine:
    """The engine called `name`; None is auto. Raises ConfigError: unknown, or not installed."""
    return choose(name, controller).engine


def choose(name: EngineName | None = None, controller: Controller = "warren") -> Chosen:
    """As `engine`, with the reason. `controller`: of the native engine; aioquic has CUBIC only. Raises ConfigError."""
    if name in (None, "auto"):
        asked, why = os.environ.get(VARIABLE) or "auto", f"{VARIABLE} says so"
    else:
        asked, why = str(name), "the settings say so"
    if asked not in get_args(EngineName):
        raise ConfigError(f"unknown QUIC engine {asked!r} ({why}): use one of {', '.join(get_args(EngineName))}")
    if asked == "aioquic":
        return Chosen(_aioquic(), why)
    try:
        native = _native(controller)
    except ImportError as error:
        missing = "is not installed" if isinstance(error, ModuleNotFoundError) else f"can't be loaded: {error}"
        if asked == "native":
            raise ConfigError(
                f"the native QUIC engine was asked for ({why}), and warren_quic {missing}; `pip install ./quic` in a "
                "clone builds it (Rust 1.88 or newer), or use engine aioquic"
            ) from None
        return Chosen(_aioquic(), f"warren_quic {missing}")
    return Chosen(native, "warren_quic is installed" if asked == "auto" else why)


def _native(controller: Controller) -> Engine:
    """Raises ImportError, also where only a folder of the module's name is on the path."""
    from warren.fabric.engines.native import NativeEngine

    return NativeEngine(controller)


def _aioquic() -> Engine:
    from warren.fabric.engines.aioquic import AioquicEngine

    return AioquicEngine()
