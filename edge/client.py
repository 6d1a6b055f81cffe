"""The commands' side of the admin API: HTTP over the edge's Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

from warren.fabric.core.errors import WarrenError

TIMEOUT = 15.0
"""Seconds for an answer: a change waits five for the store at most."""
ANSWER_LIMIT = 64 << 20
"""Bytes of an answer: every route of a full store has less."""


class EdgeError(WarrenError):
    """The edge said no, or can't be asked. The text is one line."""


class Client:
    """One edge, by the path of its admin socket."""

    def __init__(self, path: Path, timeout: float = TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """The decoded answer. Raises EdgeError, as the others do."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Makes something, and gives it as the edge keeps it."""
        return self._ask("POST", path, body)

    def patch(self, path: str, which: str, body: dict[str, Any]) -> Any:
        """Changes what `which` names below `path`, and gives it as the edge keeps it."""
        return self._ask("PATCH", f"{path}/{quote(which, safe='')}", body)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """Puts something in the place of what was there."""
        return self._ask("PUT", path, body)

    def delete(self, path: str, which: str, query: str = "") -> Any:
        """Deletes what `which` names below `path`, and gives what it was."""
        return self._ask("DELETE", f"{path}/{quote(which, safe='')}{query}", None)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        connection = _Connection(self._path, self._timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"} if data else {})
            answer = connection.getresponse()
            text = answer.read(ANSWER_LIMIT + 1)
        except (OSError, http.client.HTTPException) as error:
            raise EdgeError(self._away(error)) from None
        finally:
            connection.close()
        return self._decode(answer.status, text)

    def _decode(self, status: int, text: bytes) -> Any:
        try:
            decoded = json.loads(text) if len(text) <= ANSWER_LIMIT else None
        except (ValueError, RecursionError):
            decoded = None
        if decoded is None:
            raise EdgeError(f"what answers on {self._path} is no edge: give its socket by --socket")
        if status >= 400:
            said = decoded.get("error") if isinstance(decoded, dict) else None
            raise EdgeError(said if isinstance(said, str) and said else f"the edge answered with status {status}")
        return decoded

    def _away(self, error: Exception) -> str:
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return (
                f"no edge runs here (nothing answers on {self._path}): start it with `warren edge run`, "
                "or give its socket by --socket"
            )
        if isinstance(error, PermissionError):
            return f"you may not use {self._path}: become root, or a member of the group that owns it"
        if isinstance(error, TimeoutError):
            return f"the edge on {self._path} did not answer within {self._timeout:.0f} s: its log may say why"
        if isinstance(error, http.client.HTTPException):
            return f"what answers on {self._path} is no edge: give its socket by --socket"
        return f"the edge on {self._path} can't be asked: {error}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("edge", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Over the Unix socket instead of TCP."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
