"""Where the token comes from, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from warren.connector.config import ConnectorConfig
from warren.fabric.core.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "passed").mkdir()
    for name in ("flag", "settings", "passed/token"):
        (tmp_path / name).write_text(f" {name}\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def test_the_flag_then_systemd_then_the_settings(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ConnectorConfig(token_file=str(files / "settings"))
    assert config.read_token() == "settings"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files / "passed"))
    assert config.read_token() == "passed/token"
    assert config.read_token(str(files / "flag")) == "flag"


def test_a_credential_of_systemd_may_carry_an_acl(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "passed" / "token").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files / "passed"))
    assert ConnectorConfig().read_token() == "passed/token"


def test_any_other_file_must_be_private(files: Path) -> None:
    (files / "flag").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        ConnectorConfig().read_token(str(files / "flag"))


def test_without_any_it_says_what_to_do(files: Path) -> None:
    with pytest.raises(ConfigError, match="--token-file"):
        ConnectorConfig().read_token()


def test_a_file_is_read_again_and_nothing_else(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ConnectorConfig(token_file=str(files / "settings"))
    (files / "settings").write_text("newer\n")
    assert config.reread_token() == "newer"
    assert config.reread_token(str(files / "flag")) == "flag"
    with pytest.raises(ConfigError, match="standard input"):
        config.reread_token("-")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files / "passed"))
    with pytest.raises(ConfigError, match="restart the service"):
        config.reread_token()
    assert config.reread_token(str(files / "flag")) == "flag"
