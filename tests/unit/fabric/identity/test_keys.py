from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from warren.fabric.core.errors import ConfigError
from warren.fabric.identity import files, keys


def test_a_key_survives_its_file_which_is_private(tmp_path: Path) -> None:
    key = keys.generate()
    keys.save(tmp_path / "a.key", key)
    assert keys.public(keys.load(tmp_path / "a.key")) == keys.public(key)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["a.key"]


def test_an_existing_key_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    first, second = keys.generate(), keys.generate()
    keys.save(tmp_path / "a.key", first)
    with pytest.raises(ConfigError, match="exists already"):
        keys.save(tmp_path / "a.key", second)
    assert keys.public(keys.load(tmp_path / "a.key")) == keys.public(first)
    keys.save(tmp_path / "a.key", second, replace=True)
    assert keys.public(keys.load(tmp_path / "a.key")) == keys.public(second)
    assert os.listdir(tmp_path) == ["a.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    keys.save(tmp_path / "a.key", keys.generate())
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        keys.load(tmp_path / "a.key")


def test_what_is_no_ed25519_key_is_refused_in_one_line(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for index, data in enumerate([b"", b"nonsense", other, b"x" * (files.FILE_LIMIT + 1)]):
        path = tmp_path / f"{index}.key"
        files.write_private(path, data)
        with pytest.raises(ConfigError) as caught:
            keys.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        keys.load(tmp_path / "none.key")


def test_a_directory_that_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be written"):
        keys.save(tmp_path / "none" / "a.key", keys.generate())
    assert os.listdir(tmp_path) == []


def test_private_directory_is_made_private_and_refuses_an_open_one(tmp_path: Path) -> None:
    files.private_directory(tmp_path / "d")
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    (tmp_path / "d").chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        files.private_directory(tmp_path / "d")


def test_names_and_signatures() -> None:
    key = keys.generate()
    raw = keys.public(key)
    assert len(raw) == 32
    assert keys.thumbprint(raw) == hashlib.sha256(raw).hexdigest()
    assert keys.public(keys.from_raw(keys.private_raw(key))) == raw
    assert keys.verified(raw, key.sign(b"x"), b"x")
    assert not keys.verified(raw, key.sign(b"x"), b"y")
    assert not keys.verified(b"short", key.sign(b"x"), b"x")
    assert not keys.verified(raw, b"", b"x")
    assert len(keys.new_id()) == 20
    assert keys.new_id() != keys.new_id()
