from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.edge.fake_api import fake_api
from warren.edge.client import Client, EdgeError
from warren.fabric.core.errors import ConfigError


def refused(client: Client, path: str = "/v1/x") -> str:
    with pytest.raises(EdgeError) as caught:
        client.get(path)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, ConfigError)
    return str(caught.value)


def test_answers_come_back_decoded(tmp_path: Path) -> None:
    with fake_api(tmp_path / "s") as api:
        api.answers[("GET", "/v1/x")] = (200, [1])
        api.answers[("POST", "/v1/x")] = (201, {"id": "a"})
        api.answers[("DELETE", "/v1/x/a%2Fb?force=true")] = (200, {"id": "a/b"})
        client = Client(tmp_path / "s")
        assert client.get("/v1/x") == [1]
        assert client.post("/v1/x", {"k": "v"}) == {"id": "a"}
        assert client.delete("/v1/x", "a/b", "?force=true") == {"id": "a/b"}
        assert ("POST", "/v1/x", {"k": "v"}) in api.asked


def test_an_error_is_what_the_edge_says(tmp_path: Path) -> None:
    with fake_api(tmp_path / "s") as api:
        api.answers[("GET", "/v1/x")] = (409, {"error": "there is one already", "reason": "exists"})
        assert refused(Client(tmp_path / "s")) == "there is one already"


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (500, {}, "status 500"),
        (500, {"error": 7}, "status 500"),
        (500, [], "status 500"),
        (200, b"<html>", "no edge"),
        (502, b"", "no edge"),
        (200, b"[" * 100_000, "no edge"),
        (200, b"\xff\xfe", "no edge"),
        (0, b"SSH-2.0-OpenSSH\r\n", "no edge"),
        (0, b"", "no edge"),
    ],
)
def test_strange_answers_are_one_line(tmp_path: Path, status: int, body: object, says: str) -> None:
    with fake_api(tmp_path / "s") as api:
        api.answers[("GET", "/v1/x")] = (status, body)
        assert says in refused(Client(tmp_path / "s"))


def test_a_missing_or_dead_socket_says_how_to_start_an_edge(tmp_path: Path) -> None:
    assert "warren edge run" in refused(Client(tmp_path / "none"))
    with fake_api(tmp_path / "s"):
        pass
    assert "warren edge run" in refused(Client(tmp_path / "s"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_a_socket_of_others_is_told(tmp_path: Path) -> None:
    with fake_api(tmp_path / "s"):
        (tmp_path / "s").chmod(0)
        assert "may not use" in refused(Client(tmp_path / "s"))


def test_too_long_a_path_is_told(tmp_path: Path) -> None:
    assert "can't be asked" in refused(Client(tmp_path / ("x" * 200)))
