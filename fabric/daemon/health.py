"""/ready and /metrics over HTTP, for a service manager, a load balancer, Prometheus.

GET and HEAD, one request a connection, nothing read but its first line: a web server is more than this needs. It has no
authentication, so that it is off unless an address is given, and that should be one of loopback or of a management net.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon import metrics
from warren.fabric.daemon.metrics import Family
from warren.fabric.daemon.settings import Endpoint

HEAD_LIMIT = 8192
"""Bytes of a request: what curl, probes and Prometheus send has a few hundred."""
CONNECTIONS = 32
"""At once; more are closed."""
PATIENCE = 5.0
"""Seconds for a request and its answer."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is served."""

    ready: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]
    """Whether it is, and more about it, as JSON."""
    families: Callable[[], Iterable[Family]]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    content_type: str
    body: bytes


@asynccontextmanager
async def serve_health(address: Endpoint, health: Health) -> AsyncIterator[None]:
    """Serves while the block runs. Raises ConfigError: the address can't be had."""
    tasks = set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(tasks) >= CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(_serve(health, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    try:
        server = await asyncio.start_server(connected, address.host, address.port, limit=HEAD_LIMIT)
    except OSError as error:
        raise ConfigError(f"--metrics {address}: {error.strerror or error}; choose another address or port") from None
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(health: Health, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _respond(health, head))
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        with contextlib.suppress(OSError):
            writer.close()


async def _respond(health: Health, head: bytes) -> bytes:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _packed(_text("400 Bad Request", "no request of HTTP/1.1\n"), body=True)
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        return _packed(_text("405 Method Not Allowed", "GET or HEAD\n"), body=True)
    return _packed(await _page(health, target.partition("?")[0]), body=method == "GET")


async def _page(health: Health, path: str) -> _Answer:
    if path == "/ready":
        ready, more = await health.ready()
        body = json.dumps({"ready": ready, **more}, indent=2).encode() + b"\n"
        return _Answer("200 OK" if ready else "503 Service Unavailable", "application/json", body)
    if path == "/metrics":
        page = metrics.text([*metrics.process(), *health.families()])
        return _Answer("200 OK", metrics.CONTENT_TYPE, page.encode())
    return _text("404 Not Found", "there are /ready and /metrics\n")


def _text(status: str, text: str) -> _Answer:
    return _Answer(status, "text/plain; charset=utf-8", text.encode())


def _packed(answer: _Answer, *, body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status}\r\nContent-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if body else b"")
