"""An edge whose store is in PostgreSQL: made, looked at, copied and put back by the administrator's commands."""

from __future__ import annotations

import asyncio
import base64
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import postgresql
from warren.cli.main import main
from warren.edge import admin, state
from warren.edge.api.app import create_app
from warren.edge.api.context import Identity
from warren.edge.api.live import NothingLive
from warren.edge.store.database import open_store
from warren.fabric.identity.statements import Edge


@pytest.fixture(scope="module")
def postgres() -> Iterator[postgresql.Server]:
    with postgresql.server() as server:
        yield server


def epoch(url: str) -> int:
    async def read() -> int:
        repository = await open_store(url)
        await repository.close()
        return repository.snapshot.epoch

    return asyncio.run(read())


def test_an_edge_is_made_copied_and_put_back(
    postgres: postgresql.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, copy = postgres.new_database(), str(tmp_path / "copy.tar")
    places = ["--state-dir", str(tmp_path / "state"), "--store", url]
    made = ["edge", "init", "--public", "127.0.0.1", "--admin-dir", str(tmp_path / "admin"), *places]
    assert main(made) == 0
    assert not (tmp_path / "state" / state.STORE).exists()
    before = epoch(url)
    assert before > 0
    assert main(["edge", "backup", copy, *places]) == 0
    assert "pg_dump" in capsys.readouterr().err
    with tarfile.open(copy) as tar:
        assert sorted(tar.getnames()) == sorted(state.CREDENTIALS)
    again = ["edge", "restore", copy, "--state-dir", str(tmp_path / "again")]
    assert main(again) != 0
    assert "--store" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
    assert main([*again, "--store", url]) == 0
    assert epoch(url) > before
    state.load_credentials(tmp_path / "again")
    other = ["edge", "init", "--public", "127.0.0.1", "--admin-dir", str(tmp_path / "a2"), "--store", url]
    assert main([*other, "--state-dir", str(tmp_path / "s2")]) != 0
    assert "already" in capsys.readouterr().err
    assert not (tmp_path / "a2").exists()


def test_no_password_is_taken_from_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["edge", "init", "--public", "h.example", "--store", "postgresql://u:geheim@h/db", "--admin-dir"]
    assert main([*said, str(tmp_path / "a"), "--state-dir", str(tmp_path / "s")]) != 0
    said_back = capsys.readouterr().err
    assert "store_password_file" in said_back
    assert "geheim" not in said_back.replace(said[5], "")


@pytest.mark.anyio
async def test_the_api_says_that_nothing_can_be_changed_now(postgres: postgresql.Server) -> None:
    repository = await open_store(postgres.new_database(), create=True)
    await repository.add_tunnel("a" * 20, "site", b"authority", b"statement", 1, 1_800_000_000)
    app = create_app(repository, NothingLive(), Identity("f", b"", ()))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as http:
        postgres.stop()
        try:
            route = {"kind": "ip", "value": "10.0.0.0/8", "tunnel": "site"}
            refused = await http.post("/v1/routes", json=route)
            assert (refused.status_code, refused.json()["reason"]) == (503, "store")
            assert "can't be read or changed now" in refused.json()["error"]
            assert [tunnel["name"] for tunnel in (await http.get("/v1/tunnels")).json()] == ["site"]
        finally:
            postgres.start()
        assert (await http.post("/v1/routes", json=route)).status_code == 201
        assert (await http.get("/v1/info")).json()["store"] == "postgresql"
    await repository.close()


@pytest.mark.anyio
async def test_a_new_list_of_edges_is_taken_once_and_in_order(postgres: postgresql.Server, tmp_path: Path) -> None:
    admin.create(tmp_path / "admin", tmp_path / "state", Edge("a" * 20, "edge.example.net", 4433, "fra"))
    administrator = admin.Administrator(tmp_path / "admin")
    second = administrator.new_edge("paris", "paris.example.net", 443).signed
    body = {"signed": base64.b64encode(second).decode()}
    identity = Identity("f", administrator.network, (), "a" * 20)
    for url, status in ((tmp_path / "file", 400), (postgres.new_database(), 200)):
        repository = await open_store(url, create=True)
        await repository.set_edges(administrator.signed_edges, b"")
        transport = httpx.ASGITransport(create_app(repository, NothingLive(), identity))
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as http:
            answers = [await http.post("/v1/edges", json=body) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [status, 409 if status == 200 else 400]
            listed = (await http.get("/v1/edges")).json()
            names = ["fra", "paris"] if status == 200 else ["fra"]
            assert [edge["name"] for edge in listed["edges"]] == names
            assert (await http.post("/v1/edges", json={"signed": "AAAA"})).status_code == 400
        await repository.close()
