"""Units: systemd's own word on them, what is in them, and that uninstalling is the undo."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from warren.cli.main import main
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon import service
from warren.fabric.daemon.service import quoted

ROLES = ("agent", "connector", "edge")
SETTINGS = {
    "agent": "state_dir: /srv/w/agent\nlog: {file: /var/log/warren/agent.log}\n",
    "connector": "drain: 45\nmetrics: 127.0.0.1:9310\n",
    "edge": "log: {file: /srv/log/edge.log}\n",
}


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "office.token"
    path.write_text("warren-tunnel-x")
    path.chmod(0o600)
    return path


def install(role: str, directory: Path, token: Path, *more: str) -> Path:
    words = ["--token-file", str(token)] if role == "connector" else []
    assert main([role, "service", "install", "--unit-dir", str(directory), *words, *more]) == 0
    return directory / f"warren-{role}.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("with_settings", [False, True])
@pytest.mark.parametrize("role", ROLES)
def test_systemd_finds_nothing_wrong(role: str, with_settings: bool, tmp_path: Path, token: Path) -> None:
    more = []
    if with_settings:
        file = tmp_path / f"{role}.yaml"
        file.write_text(SETTINGS[role])
        more = ["--config", str(file)]
    path = install(role, tmp_path, token, *more)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("role", ROLES)
def test_every_unit_is_hardened_and_tells_when_it_is_ready(role: str, tmp_path: Path, token: Path) -> None:
    lines = install(role, tmp_path, token).read_text().splitlines()
    assert {"Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(lines)
    assert "warren-tunnel-x" not in "\n".join(lines)
    [command] = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")]
    assert shlex.split(command)[1:4] == ["-m", "warren.cli", role]


def test_the_guardian_outlives_the_agent(tmp_path: Path, token: Path) -> None:
    lines = install("agent", tmp_path, token).read_text().splitlines()
    assert "KillMode=process" in lines
    assert "StateDirectory=warren/agent" in lines
    assert "RuntimeDirectory=warren" in lines
    assert "RuntimeDirectoryPreserve=yes" in lines


def test_the_connector_gets_its_token_as_a_credential(tmp_path: Path, token: Path) -> None:
    lines = install("connector", tmp_path, token).read_text().splitlines()
    assert f"LoadCredential=token:{token}" in lines
    assert "DynamicUser=yes" in lines
    assert "CapabilityBoundingSet=CAP_NET_RAW" in lines


def test_a_connector_without_a_token_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["connector", "service", "install", "--unit-dir", str(tmp_path)]
    assert main(words) == 2
    assert "--token-file" in capsys.readouterr().err
    assert main([*words, "--token-file", str(tmp_path / "none")]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ROLES)
def test_uninstalling_is_the_undo(role: str, tmp_path: Path, token: Path) -> None:
    before = sorted(tmp_path.iterdir())
    install(role, tmp_path, token)
    install(role, tmp_path, token)
    assert main([role, "service", "uninstall", "--unit-dir", str(tmp_path)]) == 0
    assert sorted(tmp_path.iterdir()) == before
    assert main([role, "service", "uninstall", "--unit-dir", str(tmp_path)]) == 2


def test_a_unit_of_another_hand_is_left_alone(tmp_path: Path, token: Path) -> None:
    path = tmp_path / "warren-edge.service"
    path.write_text("[Service]\nExecStart=/bin/true\n")
    for command in ("install", "uninstall"):
        assert main(["edge", "service", command, "--unit-dir", str(tmp_path)]) == 2
    assert path.read_text() == "[Service]\nExecStart=/bin/true\n"


def test_print_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edge", "service", "install", "--print", "--unit-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("[Install]\nWantedBy=multi-user.target\n")
    assert list(tmp_path.iterdir()) == []


def test_where_systemd_runs_it_is_told(tmp_path: Path, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[tuple[str, ...]]()
    monkeypatch.setattr(service, "_systemd", lambda directory: True)
    monkeypatch.setattr(service, "systemctl", lambda *words: told.append(words))
    install("edge", tmp_path, token)
    name = "warren-edge.service"
    assert told == [("daemon-reload",), ("enable", name), ("restart", name)]
    told.clear()
    assert main(["edge", "service", "uninstall", "--unit-dir", str(tmp_path)]) == 0
    assert told == [("disable", "--now", name), ("daemon-reload",)]


def test_words_in_a_command_line() -> None:
    assert quoted("/usr/bin/python3") == "/usr/bin/python3"
    assert quoted('a b"%$') == '"a b\\"%%$$"'
    with pytest.raises(ConfigError):
        quoted("a\nb")
