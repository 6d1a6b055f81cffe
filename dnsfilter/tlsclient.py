"""One upstream over TLS (RFC 7858): a connection that is kept, with any number of questions in flight on it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from typing import Final

import msgspec

from warren.dnsfilter.core import upstream as core
from warren.dnsfilter.core.config import Upstream
from warren.fabric.core.dnsreply import Reply, read_reply

IN_FLIGHT_MAX: Final = 1000
"""On one connection: half of what ids could tell apart would still be far away."""


class TlsConnection:
    """Opens itself when it is asked, and again when the server closed it, as servers do after some idle seconds."""

    def __init__(self, upstream: Upstream, context: ssl.SSLContext) -> None:
        self._upstream = upstream
        self._context = context
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._heard = 0
        self._waiting: dict[int, tuple[core.Asking, asyncio.Future[Reply | None]]] = {}

    async def ask(self, asking: core.Asking) -> Reply | None:
        """The answer. OSError or EOFError: no connection. A connection that had gone quietly is opened once more."""
        try:
            return await self._ask_once(asking)
        except EOFError:
            return await self._ask_once(asking)

    async def close(self) -> None:
        """End it; who waits is told."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _ask_once(self, asking: core.Asking) -> Reply | None:
        writer = await self._opened()
        if len(self._waiting) >= IN_FLIGHT_MAX:
            raise OSError("too many questions in flight")
        while asking.id in self._waiting:
            asking = msgspec.structs.replace(asking, id=secrets.randbits(16))
        answer: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self._waiting[asking.id] = asking, answer
        heard = self._heard
        try:
            message = asking.padded()
            writer.write(len(message).to_bytes(2, "big") + message)
            return await answer
        except asyncio.CancelledError:
            if self._heard == heard:  # nothing at all came: the server may have gone without a word
                writer.transport.abort()
            raise
        finally:
            self._waiting.pop(asking.id, None)

    async def _opened(self) -> asyncio.StreamWriter:
        async with self._opening:
            if self._writer is None or self._writer.is_closing():
                reader, self._writer = await asyncio.open_connection(
                    self._upstream.host,
                    self._upstream.port,
                    ssl=self._context,
                    server_hostname=self._upstream.tls_name,
                )
                self._reading = asyncio.create_task(self._read(reader, self._writer), name="dns upstream over TLS")
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                self._heard += 1
                reply = read_reply(await reader.readexactly(size))
                if reply is None:
                    continue
                asking, answer = self._waiting.get(reply.id, (None, None))
                if asking is not None and answer is not None and core.matches(asking, reply) and not answer.done():
                    answer.set_result(reply)
        except (EOFError, OSError):
            pass  # those who wait are told below
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
                for _, answer in list(self._waiting.values()):
                    if not answer.done():
                        answer.set_exception(EOFError("the upstream closed the connection"))
            with contextlib.suppress(OSError):
                await writer.wait_closed()
