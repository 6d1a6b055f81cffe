"""What the simulated floor shares."""

from __future__ import annotations

import os

import pytest

from tests.certificates import Shown, certificates
from warren.fabric.core.engine import Engine
from warren.fabric.core.errors import ConfigError
from warren.fabric.engines import EngineName, engine

SEEDS = int(os.environ.get("WARREN_SEEDS", "10"))
"""Seeds of each torture; WARREN_SEEDS=N for more."""

PAIRINGS = ("native-native", "native-aioquic", "aioquic-native", "aioquic-aioquic")
"""Engines of client and server."""


def engines_of(pairing: str) -> tuple[Engine, Engine]:
    """The engines that a pairing names. Skips the test if native is among them and can't be had."""
    return _engine(pairing.partition("-")[0]), _engine(pairing.partition("-")[2])


def _engine(name: str) -> Engine:
    names: dict[str, EngineName] = {"native": "native", "aioquic": "aioquic"}
    try:
        return engine(names[name])
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shown() -> Shown:
    """One root, chain and key for all tests of this floor."""
    return certificates()
