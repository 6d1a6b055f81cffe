"""Taking a device out leaves nothing of it, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from warren.agent.host.journal import Journal
from warren.agent.unenrol import FILES, found, unenrol
from warren.cli.main import main
from warren.fabric.core.errors import ConfigError


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "agent"
    state.mkdir(mode=0o700)
    for name in FILES:
        (state / name).write_text('{"id": "1", "name": "laptop"}')
    return state


def test_everything_of_the_device_goes_and_the_directory_too(state: Path) -> None:
    assert unenrol(state, state / "none.sock") == "laptop"
    assert not state.exists()


def test_files_of_others_stay(state: Path) -> None:
    (state / "note").write_text("mine")
    unenrol(state, state / "none.sock")
    assert [path.name for path in state.iterdir()] == ["note"]


def test_it_refuses_while_an_agent_runs(state: Path) -> None:
    journal = Journal.open(state, {})
    try:
        with pytest.raises(ConfigError, match="warren agent down"):
            unenrol(state, state / "none.sock")
    finally:
        journal.close()
    assert len(found(state)) == len(FILES)


def test_it_asks_first(state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["agent", "unenrol", "--state-dir", str(state), "--socket", str(state / "none.sock")]
    assert main(words) == 1
    assert "device.key" in capsys.readouterr().err
    assert len(found(state)) == len(FILES)
    assert main([*words, "--yes"]) == 0
    assert "warren device delete laptop" in capsys.readouterr().out
    assert main([*words, "--yes"]) == 2
    assert "not enrolled" in capsys.readouterr().err
