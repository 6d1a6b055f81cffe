"""`warren admin export` and `import`: the commands as a user gives them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from warren.edge import admin
from warren.edge.commands.admins import app
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity import keys
from warren.fabric.identity.sealed import seal
from warren.fabric.identity.statements import Edge

PASSPHRASE = "a long passphrase"


@pytest.fixture
def keys_of_admin(tmp_path: Path) -> Path:
    admin.create(tmp_path / "admin", tmp_path / "state", Edge("a" * 20, "edge.example.net", 4433, "fra"))
    return tmp_path / "admin"


def run(*words: object, passphrase: str = PASSPHRASE) -> Result:
    """With the passphrase on standard input. Errors are raised."""
    given = [*map(str, words)] + (["--passphrase-file", "-"] if words[0] != "info" else [])
    return CliRunner().invoke(app, given, input=passphrase + "\n", catch_exceptions=False)


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in sorted(os.listdir(directory))}


def test_the_keys_come_back_as_they_were(keys_of_admin: Path, tmp_path: Path) -> None:
    copy, back = tmp_path / "copy.sealed", tmp_path / "back"
    assert run("export", copy, "--admin-dir", keys_of_admin).exit_code == 0
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    private = keys.private_raw(keys.load(keys_of_admin / admin.NETWORK_KEY))
    assert private not in copy.read_bytes() and b"PRIVATE" not in copy.read_bytes()
    assert run("import", copy, "--admin-dir", back).exit_code == 0
    assert contents(back) == contents(keys_of_admin)
    assert stat.S_IMODE(back.stat().st_mode) == 0o700
    fingerprint = admin.Administrator(back).fingerprint
    assert fingerprint in run("info", "--admin-dir", back).output
    assert admin.Administrator(back).new_tunnel("office").name == "office"


def test_another_passphrase_brings_nothing_back(keys_of_admin: Path, tmp_path: Path) -> None:
    run("export", tmp_path / "copy", "--admin-dir", keys_of_admin)
    with pytest.raises(ConfigError, match="passphrase is another one"):
        run("import", tmp_path / "copy", "--admin-dir", tmp_path / "back", passphrase="some other passphrase")
    assert not (tmp_path / "back").exists()


def test_keys_that_are_there_are_not_overwritten(keys_of_admin: Path, tmp_path: Path) -> None:
    run("export", tmp_path / "copy", "--admin-dir", keys_of_admin)
    before = contents(keys_of_admin)
    with pytest.raises(ConfigError, match="already"):
        run("import", tmp_path / "copy", "--admin-dir", keys_of_admin)
    with pytest.raises(ConfigError, match="exists already"):
        run("export", tmp_path / "copy", "--admin-dir", keys_of_admin)
    assert contents(keys_of_admin) == before


@pytest.mark.parametrize("content", [b"", b"\xc0", msgspec.msgpack.encode({"../x": b""}), msgspec.msgpack.encode({})])
def test_what_is_no_copy_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "copy"
    source.write_bytes(seal(content, PASSPHRASE))
    source.chmod(0o600)
    with pytest.raises(ConfigError, match="no copy of an administrator's keys"):
        run("import", source, "--admin-dir", tmp_path / "back")
    assert sorted(os.listdir(tmp_path)) == ["copy"]


def test_keys_of_different_networks_leave_nothing(keys_of_admin: Path, tmp_path: Path) -> None:
    admin.create(tmp_path / "other", tmp_path / "other-state", Edge("b" * 20, "edge.example.net", 4433, "fra"))
    mixed = contents(keys_of_admin) | {admin.NETWORK_KEY: (tmp_path / "other" / admin.NETWORK_KEY).read_bytes()}
    source = tmp_path / "copy"
    source.write_bytes(seal(msgspec.msgpack.encode(mixed), PASSPHRASE))
    source.chmod(0o600)
    with pytest.raises(ConfigError, match="does not belong"):
        run("import", source, "--admin-dir", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_without_a_terminal_a_file_is_needed(keys_of_admin: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--passphrase-file"):
        CliRunner().invoke(
            app, ["export", str(tmp_path / "copy"), "--admin-dir", str(keys_of_admin)], catch_exceptions=False
        )
    with pytest.raises(ConfigError, match="too short"):
        run("export", tmp_path / "copy", "--admin-dir", keys_of_admin, passphrase="short")
    assert not (tmp_path / "copy").exists()
