"""Serves an ASGI app on a Unix socket inside the edge's own event loop.

uvicorn, driven by its `startup` and `shutdown`: no thread, no signal handler, no ticking, and the socket is ours, so
that it has its mode before anybody can find it. (granian's embedded server, tried at 2.8, also runs in the loop and
takes as long per request, but binds the path itself with the process's umask, has no bound on its shutdown, and calls
itself experimental.)
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from warren.fabric.core.errors import ConfigError

SOCKET_MODE = 0o660
DIRECTORY_MODE = 0o750
PATH_LIMIT = 100
"""Bytes of the socket's path: Linux allows 107, and `.new` comes behind while it is made."""
BACKLOG = 64
"""Connections that wait to be accepted."""
REQUESTS_LIMIT = 256
"""Requests at once; more are answered 503."""
STOP_SECONDS = 2
"""How long requests that are under way may take when the edge stops."""


@asynccontextmanager
async def serve(app: ASGIApp, path: Path, *, mode: int = SOCKET_MODE) -> AsyncIterator[None]:
    """Serves `app` on the Unix socket `path` while the block runs; makes its directory (0750) if there is none.

    A socket that nobody answers is replaced. Raises ConfigError: somebody answers it, it is no socket, no permission.
    """
    listener, inode = _listen(path, mode)
    server = _server(app)
    try:
        await server.startup(sockets=[listener])
        try:
            yield
        finally:
            await server.shutdown(sockets=[listener])
    finally:
        listener.close()
        _remove(path, inode)


def ensure_free(path: Path) -> None:
    """Nobody answers on this socket: no edge is running here. Raises ConfigError."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError(f"{path} is there and is no socket: remove it, or choose another admin socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
    raise ConfigError(f"another edge answers on {path}: stop it first, or choose another admin socket")


def _server(app: ASGIApp) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=REQUESTS_LIMIT,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    return server


def _listen(path: Path, mode: int) -> tuple[socket.socket, int]:
    """Bound under another name, given its mode, then moved into place: nobody sees it unready. Also its inode."""
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise ConfigError(f"the admin socket's path {path} is longer than {PATH_LIMIT} bytes: choose a shorter one")
    fresh = path.with_name(path.name + ".new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        ensure_free(path)
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        fresh.chmod(mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        inode = fresh.lstat().st_ino
        fresh.replace(path)
    except OSError as error:
        listener.close()
        raise ConfigError(f"the admin socket {path} can't be made: {error.strerror or error}") from None
    except BaseException:
        listener.close()
        raise
    return listener, inode


def _remove(path: Path, inode: int) -> None:
    """Only if it is still ours."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        pass
