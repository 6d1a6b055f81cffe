"""The archive has what is needed, and no key and no token, wherever they were."""

from __future__ import annotations

import base64
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.cli.main import main
from warren.connector.config import ConnectorConfig
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.diag import LEFT_OUT, scrubbed, write
from warren.fabric.daemon.settings import LogSettings
from warren.fabric.identity import keys
from warren.fabric.identity.tokens import ENROLMENT_PREFIX, TUNNEL_PREFIX


def contents(file: Path) -> dict[str, str]:
    """Text by name, without the folder."""
    with tarfile.open(file) as archive:
        found = {entry.name.partition("/")[2]: archive.extractfile(entry) for entry in archive}
        return {name: reader.read().decode() for name, reader in found.items() if reader is not None}


def secrets_of(key: bytes) -> list[str]:
    private = keys.from_raw(key)
    pem = keys.private_pem(private).decode()
    body = base64.urlsafe_b64encode(b"\x01" + key * 20).decode().rstrip("=")
    return [
        pem,
        "".join(pem.splitlines()[1:-1]),
        key.hex(),
        base64.b64encode(key).decode(),
        base64.urlsafe_b64encode(key).decode(),
        TUNNEL_PREFIX + body,
        TUNNEL_PREFIX + "\n".join(body[at : at + 30] for at in range(0, len(body) // 30 * 30, 30)),
        ENROLMENT_PREFIX + body,
    ]


@given(st.binary(min_size=32, max_size=32).filter(lambda key: len(set(key)) > 20))
def test_no_form_of_a_key_stays(key: bytes) -> None:
    for secret in secrets_of(key):
        for around in ("{}", "token={} x", '"{}",', "a\n{}\nb", "key='{}'"):
            text = scrubbed(around.format(secret))
            assert secret.strip() not in text
            body = secret.strip()[20:]
            assert not any(body[at : at + 16] in text for at in range(0, max(1, len(body) - 16), 8))


def test_what_helps_stays() -> None:
    text = "2026-11-21 agent connected device=3fa9c1d2 origin=10.10.0.10:443 /usr/lib/python3/dist-packages/warren/cli"
    assert scrubbed(text) == text
    assert scrubbed("ab12cd34" * 8) == f"ab12cd34{LEFT_OUT}"


def test_the_archive_of_a_connector(tmp_path: Path) -> None:
    key = os.urandom(32)
    token = tmp_path / "office.token"
    token.write_text(secrets_of(key)[5])
    token.chmod(0o600)
    log = tmp_path / "connector.log"
    log.write_text("connector ready\n" + "\n".join(secrets_of(key)) + "\nlast line\n")
    file = tmp_path / "diag.tar.gz"
    config = ConnectorConfig(token_file=str(token), log=LogSettings(file=log))

    def fails() -> str:
        raise OSError(f"no {secrets_of(key)[3]}")

    write(file, "connector", config, {"more.txt": fails})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = contents(file)
    assert {"versions.txt", "settings.json", "log.txt", "host/routes.txt", "host/resolv.conf"} <= set(found)
    assert found["log.txt"].startswith("connector ready\n")
    assert found["log.txt"].endswith("last line\n")
    assert str(token) in found["settings.json"]
    assert found["more.txt"].startswith("could not be had: OSError")
    whole = "".join(found.values())
    for secret in secrets_of(key):
        assert secret.strip() not in whole
    with pytest.raises(ConfigError, match="is there already"):
        write(file, "connector", config, {})


def test_a_long_log_is_cut_at_a_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 99 + "\n" + ("y" * 99 + "\n") * 21_000)
    file = tmp_path / "diag.tar.gz"
    write(file, "connector", ConnectorConfig(log=LogSettings(file=log)), {})
    lines = contents(file)["log.txt"].splitlines()
    assert set(lines) == {"y" * 99}


@pytest.mark.parametrize("role", ["agent", "connector", "edge"])
def test_without_a_daemon_it_says_what_it_could_not_have(
    role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("metrics: 127.0.0.1:1\n" if role == "connector" else f"socket: {tmp_path / 'none.sock'}\n")
    file = tmp_path / "diag.tar.gz"
    assert main([role, "diag", str(file), "--config", str(settings)]) == 0
    assert "look through it" in capsys.readouterr().err
    found = contents(file)
    missing = {"agent": "status.json", "connector": "ready.json", "edge": "info.json"}[role]
    assert "could not be had" in found[missing]
