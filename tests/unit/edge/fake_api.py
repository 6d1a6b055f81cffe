"""A small real HTTP server on a Unix socket that answers as it is told, and keeps what it was asked."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Answer = tuple[int, object]


class FakeApi:
    """`answers`: (method, path) → (status, body); a body that is bytes goes out as it is."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.asked: list[tuple[str, str, Any]] = []


@contextmanager
def fake_api(path: Path) -> Iterator[FakeApi]:
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length", "0"))
            body = json.loads(self.rfile.read(length)) if length else None
            api.asked.append((self.command, self.path, body))
            missing = (404, {"error": f"nothing at {self.path}", "reason": "not_found"})
            status, said = api.answers.get((self.command, self.path), missing)
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            if status:
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
