"""Which engine runs, and why."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from warren.fabric.core.errors import ConfigError
from warren.fabric.engines import VARIABLE, choose, engine


@pytest.fixture(autouse=True)
def no_word_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def bare_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a folder `warren_quic` without anything in it is to `import`."""
    monkeypatch.delitem(sys.modules, "warren.fabric.engines.native", raising=False)
    monkeypatch.setitem(sys.modules, "warren_quic", ModuleType("warren_quic"))


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "warren.fabric.engines.native", raising=False)
    monkeypatch.setitem(sys.modules, "warren_quic", None)


def test_native_is_chosen_where_it_is_installed() -> None:
    pytest.importorskip("warren_quic", exc_type=ImportError).Connection  # noqa: B018  # a bare folder imports too
    chosen = choose()
    assert chosen.words() == {"engine": "native", "controller": "warren", "why": "warren_quic is installed"}
    assert engine("auto", "cubic").controller == "cubic"
    assert engine("native").name == "native"


@pytest.mark.usefixtures("missing")
def test_aioquic_is_chosen_where_native_is_not_installed() -> None:
    chosen = choose()
    assert chosen.words() == {"engine": "aioquic", "controller": "cubic", "why": "warren_quic is not installed"}
    with pytest.raises(ConfigError, match=r"settings say so.*warren_quic is not installed.*pip install ./quic"):
        engine("native")


@pytest.mark.usefixtures("bare_folder")
def test_a_bare_folder_is_no_engine() -> None:
    chosen = choose()
    assert chosen.engine.name == "aioquic" and chosen.why.startswith("warren_quic can't be loaded: ")


def test_the_environment_counts_where_the_settings_leave_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "aioquic")
    assert choose("auto").words() == {"engine": "aioquic", "controller": "cubic", "why": "WARREN_ENGINE says so"}
    monkeypatch.setenv(VARIABLE, "quiche")
    with pytest.raises(ConfigError, match=r"unknown QUIC engine 'quiche' \(WARREN_ENGINE says so\): use one of auto"):
        engine()
    assert engine("aioquic").name == "aioquic"
