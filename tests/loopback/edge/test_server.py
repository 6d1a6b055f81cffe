"""The admin socket: its mode, its place, stale and living ones, and how it ends."""

# ruff: noqa: ASYNC240 -- a test may wait for its disk
from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from warren.edge.api import server
from warren.edge.api.server import serve
from warren.fabric.core.errors import ConfigError

pytestmark = pytest.mark.anyio


def client(path: Path, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://edge", **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "admin.sock"


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.get("/loop")
    async def loop() -> int:
        return id(asyncio.get_running_loop())

    return app


async def refused(app: FastAPI, path: Path, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        async with serve(app, path):
            pytest.fail("it was served")
    assert "\n" not in str(error.value)


async def test_the_socket_is_for_owner_and_group_and_goes_away(app: FastAPI, path: Path) -> None:
    mask = os.umask(0)
    try:
        async with serve(app, path):
            modes = stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)
            assert modes == (0o660, 0o750)
            async with client(path) as http:
                assert (await http.get("/loop")).json() == id(asyncio.get_running_loop())
    finally:
        os.umask(mask)
    assert list(path.parent.iterdir()) == []
    async with serve(app, path, mode=0o600):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_stale_socket_is_replaced_and_a_living_one_is_not(app: FastAPI, path: Path) -> None:
    path.parent.mkdir()
    for name in (path, path.with_name("admin.sock.new")):
        with closing(socket.socket(socket.AF_UNIX)) as stale:
            stale.bind(str(name))
    async with serve(app, path):
        await refused(app, path, "another edge answers on")
        async with client(path) as http:
            assert (await http.get("/loop")).status_code == 200
    assert list(path.parent.iterdir()) == []


async def test_what_is_no_socket_is_left_alone(app: FastAPI, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    await refused(app, path, "is no socket: remove it")
    assert path.read_text() == "precious"
    await refused(app, path / "below", "can't be made")
    await refused(app, path.with_name("x" * 120), "choose a shorter one")


async def test_it_leaves_a_successors_socket_alone(app: FastAPI, path: Path) -> None:
    async with serve(app, path):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


async def test_a_request_that_hangs_does_not_hold_up_the_end(
    app: FastAPI, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 0.2)
    begun = asyncio.Event()

    @app.get("/hang")
    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with client(path, timeout=10) as http, asyncio.timeout(10):
        async with serve(app, path):
            hanging = asyncio.create_task(http.get("/hang"))
            idle = asyncio.create_task(http.get("/loop"))
            await begun.wait()
            assert (await idle).status_code == 200
        (ended,) = await asyncio.gather(hanging, return_exceptions=True)
        assert isinstance(ended, httpx.HTTPError) or (isinstance(ended, httpx.Response) and ended.status_code == 500)


async def test_a_fault_in_the_block_ends_the_server(app: FastAPI, path: Path) -> None:
    with pytest.raises(KeyError):
        async with serve(app, path):
            raise KeyError
    assert list(path.parent.iterdir()) == []
