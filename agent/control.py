"""The agent's control socket: one JSON object in a line, one back. Root's only (mode 0600)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from warren.fabric.core.errors import ConfigError

LINE = 1 << 20
"""Bytes of one request or answer: status of some thousand flows."""
PATIENCE = 5.0

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ControlServer:
    """Answers commands by name. `path` is removed again."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises ConfigError if another agent answers there, or the path can't be used."""
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._path.parent} can't be made: {error.strerror}") from None
        require_free(self._path)
        try:
            self._path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LINE)
            finally:
                os.umask(before)
        except OSError as error:
            raise ConfigError(f"the control socket {self._path} can't be made: {error.strerror}") from None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                asked = json.loads(await reader.readline())
            command = self._commands.get(str(asked.get("do")))
            if command is None:
                answer = {"error": f"unknown command; there are {', '.join(self._commands)}"}
            else:
                answer = await command(asked)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (ValueError, AttributeError, TimeoutError, OSError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)


def require_free(path: Path) -> None:
    """Raises ConfigError if an agent answers there."""
    if _answers(path):
        raise ConfigError(f"an agent runs already ({path} answers): `warren agent down` stops it")


def ask(path: Path, command: dict[str, Any]) -> dict[str, Any]:
    """Asks a running agent. Raises ConfigError if none runs there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps(command).encode() + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline(LINE)
            answer = json.loads(line)
        except PermissionError:
            raise ConfigError(f"{path} is root's: use sudo") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise ConfigError("no agent runs here: start it with `warren agent up`") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"the agent on {path} does not answer ({error})") from None
    if "error" in answer:
        raise ConfigError(str(answer["error"]))
    return dict(answer)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True
