"""The tests of the face run on each engine that is installed."""

from __future__ import annotations

import pytest

from tests.unit.fabric.engines import wire
from warren.fabric.core.engine import Engine
from warren.fabric.core.errors import ConfigError
from warren.fabric.engines import engine


@pytest.fixture(params=["aioquic", "native"])
def on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine under test."""
    try:
        chosen = engine(request.param)
    except ConfigError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(wire, "current", chosen)
    return chosen
