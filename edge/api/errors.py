"""Every answer that is no success: {"error": one line for people, "reason": a word for programs}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warren.edge.store.errors import ExistsError, InUseError, LimitError, NotFoundError, StoreError, cause_of
from warren.fabric.core.errors import ConfigError

BODY_LIMIT = 1 << 20
"""Bytes of a request's body: the longest honest one is a DNS policy of 512 KiB, escaped as JSON."""

_STATUS: Mapping[type[StoreError], int] = {NotFoundError: 404, ExistsError: 409, InUseError: 409, LimitError: 409}
_WORDS = {405: "method", 413: "too_large"}

_log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Gives the app its error answers and the bound on bodies."""
    app.add_middleware(BodyLimit)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(ConfigError, _store_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(PoolTimeoutError, _database_error)
    app.add_exception_handler(OSError, _database_error)
    app.add_exception_handler(Exception, _fault)


def answer(status: int, error: str, reason: str) -> JSONResponse:
    """The one shape of errors."""
    return JSONResponse({"error": error, "reason": reason}, status)


class BodyLimit:
    """Reads the whole body before anybody else does, and refuses one that is too long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > BODY_LIMIT:
                refusal = answer(413, f"the request has more than {BODY_LIMIT} bytes", "too_large")
                await refusal(scope, receive, send)
                return
        unread: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)


async def _store_error(_request: Request, error: Exception) -> JSONResponse:
    word = error.word if isinstance(error, StoreError) else StoreError.word
    return answer(next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 400), str(error), word)


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    details = error.errors() if isinstance(error, RequestValidationError) else []
    return answer(400, _one_line(details[0] if details else {}), "invalid")


def _one_line(detail: Mapping[str, Any]) -> str:
    """The first thing that is wrong, without what was sent."""
    location: Sequence[Any] = detail.get("loc", ())
    field = ".".join(str(part) for part in location[1:])[:80]
    kind = detail.get("type", "")
    if kind == "json_invalid" or not field:
        return "the request's body has to be a JSON object"
    if kind == "extra_forbidden":
        return f"there is no field {field!r}"
    if kind == "missing":
        return f"the field {field!r} is missing"
    return f"{field}: {str(detail.get('msg', 'not allowed')).lower()}"


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return answer(404, "there is nothing at this path: everything is under /v1/", "not_found")
    if status == 400:
        return answer(400, "the request's body can't be read: a JSON object in UTF-8 is expected", "invalid")
    return answer(status, HTTPStatus(status).phrase.lower(), _WORDS.get(status, "invalid"))


async def _database_error(_request: Request, error: Exception) -> JSONResponse:
    """Nothing is said of whether a change was made: where the connection broke, nobody knows."""
    cause = cause_of(error)
    _log.warning("the store failed", cause=cause)
    return answer(503, f"the store can't be read or changed now: {cause}; what runs goes on from memory", "store")


async def _fault(request: Request, error: Exception) -> JSONResponse:
    _log.error("a fault in the admin API", method=request.method, path=request.url.path, exc_info=error)
    return answer(500, "a fault in Warren: the edge's log has more", "internal")
