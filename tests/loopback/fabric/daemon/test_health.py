"""/ready and /metrics on a real socket, asked well and badly."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest

from warren.cli.main import main as command
from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.health import CONNECTIONS, HEAD_LIMIT, Health, serve_health
from warren.fabric.daemon.metrics import gauge
from warren.fabric.daemon.settings import Endpoint


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def health(ready: bool = True) -> Health:
    async def asked() -> tuple[bool, dict[str, Any]]:
        return ready, {"why": "so"}

    return Health(asked, lambda: [gauge("warren_test", "A test.", 7)])


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def say(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_ready_and_metrics() -> None:
    async def main() -> None:
        address = Endpoint("127.0.0.1", free_port())
        async with serve_health(address, health()):
            status, body = await asyncio.to_thread(fetch, f"http://{address}/ready")
            assert (status, json.loads(body)) == (200, {"ready": True, "why": "so"})
            status, body = await asyncio.to_thread(fetch, f"http://{address}/metrics?x=1")
            assert status == 200
            assert "warren_test 7\n" in body
            assert (await asyncio.to_thread(fetch, f"http://{address}/"))[0] == 404
            async with asyncio.timeout(5):
                with pytest.raises(ConfigError, match="--metrics"):
                    async with serve_health(address, health()):
                        pass
        async with serve_health(address, health(ready=False)):
            assert (await asyncio.to_thread(fetch, f"http://{address}/ready"))[0] == 503

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"HEAD /ready HTTP/1.1\r\n\r\n", b"HTTP/1.1 200"),
        (b"POST /ready HTTP/1.1\r\n\r\n", b"HTTP/1.1 405"),
        (b"\r\n\r\n", b"HTTP/1.1 400"),
        (b"\xff\x00 \xfe HTTP/1.1\r\n\r\n", b"HTTP/1.1 405"),
        (b"GET  /ready HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),
        (b"x" * (HEAD_LIMIT * 3), b""),
    ],
)
def test_bad_requests_end_their_own_connection_only(request_: bytes, answer: bytes) -> None:
    async def main() -> None:
        address = Endpoint("127.0.0.1", free_port())
        async with serve_health(address, health()):
            said = await say(address.port, request_)
            assert said.startswith(answer)
            assert (said == b"") == (answer == b"")
            if request_.startswith(b"HEAD"):
                assert said.endswith(b"\r\n\r\n")
            assert (await say(address.port, b"GET /ready HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")

    asyncio.run(main())


def test_connections_are_bounded_and_ended_with_the_daemon() -> None:
    async def main() -> None:
        address = Endpoint("127.0.0.1", free_port())
        async with serve_health(address, health()):
            idle = [await asyncio.open_connection("127.0.0.1", address.port) for _ in range(CONNECTIONS)]
            assert await say(address.port, b"GET /ready HTTP/1.1\r\n\r\n") == b""
        async with asyncio.timeout(4):
            for reader, writer in idle:
                assert await reader.read() == b""
                writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("ready", [True, False])
def test_the_verb_ready_tells_by_its_exit_code(ready: bool, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> tuple[int, int]:
        port = free_port()
        words = ["edge", "ready", "--metrics", f"0.0.0.0:{port}"]
        async with serve_health(Endpoint("127.0.0.1", port), health(ready)):
            there = await asyncio.to_thread(command, words)
        return there, await asyncio.to_thread(command, words)

    assert asyncio.run(main()) == (0 if ready else 1, 1)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"ready": ready, "why": "so"}
    assert "no edge answers" in said.err
    assert command(["edge", "ready"]) == 2
