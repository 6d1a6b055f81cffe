"""One upstream over HTTPS (RFC 8484): an HTTP/2 connection that is kept, each question a POST on its own stream."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import msgspec

from warren.dnsfilter.core import doh
from warren.dnsfilter.core import upstream as core
from warren.dnsfilter.core.config import Upstream
from warren.fabric.core import dnswire as wire
from warren.fabric.core.dnsreply import Reply, read_reply

IN_FLIGHT_MAX: Final = 100
"""Streams at once, what RFC 9113 has every server allow; further questions wait for one to end."""
_READ: Final = 1 << 16


class _Exchange:
    """One question on its stream."""

    __slots__ = ("answer", "asking", "body", "status")

    def __init__(self, asking: core.Asking) -> None:
        self.asking = asking
        self.status = ""
        self.body = b""
        self.answer: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class HttpsConnection:
    """Opens itself when it is asked, and again when the server closed it."""

    def __init__(self, upstream: Upstream, context: ssl.SSLContext) -> None:
        """`context`: what its certificate is verified against, and that it offers `h2`."""
        self._upstream = upstream
        self._context = context
        self._writer: asyncio.StreamWriter | None = None
        self._h2 = _client()
        self._reading: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._heard = 0
        self._exchanges: dict[int, _Exchange] = {}

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
        async with self._room:
            writer = await self._opened()
            # Id 0: the same question is the same request (RFC 8484, section 4.1); the stream says whose answer it is.
            exchange = _Exchange(msgspec.structs.replace(asking, id=0))
            stream, heard = self._send(exchange, writer), self._heard
            try:
                return await exchange.answer
            except asyncio.CancelledError:
                if self._heard == heard:  # nothing at all came: the server may have gone without a word
                    writer.transport.abort()
                else:
                    self._take_back(stream, writer)
                raise
            finally:
                self._exchanges.pop(stream, None)

    def _send(self, exchange: _Exchange, writer: asyncio.StreamWriter) -> int:
        message, upstream = exchange.asking.padded(), self._upstream
        host = f"[{upstream.tls_name}]" if ":" in upstream.tls_name else upstream.tls_name
        fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", host if upstream.port == 443 else f"{host}:{upstream.port}"),
            (":path", upstream.path),
            ("accept", doh.MEDIA_TYPE),
            ("content-type", doh.MEDIA_TYPE),
            ("content-length", str(len(message))),
        ]
        try:
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, fields)
            self._h2.send_data(stream, message, end_stream=True)
        except h2.exceptions.ProtocolError as error:  # no more ids, streams or window: a new connection has them
            writer.transport.abort()
            raise EOFError(f"the connection takes no more: {error}") from None
        self._exchanges[stream] = exchange
        writer.write(self._h2.data_to_send())
        return stream

    def _take_back(self, stream: int, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            writer.write(self._h2.data_to_send())

    async def _opened(self) -> asyncio.StreamWriter:
        async with self._opening:
            if self._writer is None or self._writer.is_closing():
                reader, writer = await asyncio.open_connection(
                    self._upstream.host,
                    self._upstream.port,
                    ssl=self._context,
                    server_hostname=self._upstream.tls_name,
                )
                if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                    writer.close()
                    raise OSError("it speaks no HTTP/2")
                self._h2, self._writer = _client(), writer
                self._h2.initiate_connection()
                writer.write(self._h2.data_to_send())
                self._reading = asyncio.create_task(self._read(reader, writer), name="dns upstream over HTTPS")
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._h2
        try:
            while data := await reader.read(_READ):
                self._heard += 1
                for event in connection.receive_data(data):
                    self._on(event)
                writer.write(connection.data_to_send())
        except (OSError, h2.exceptions.ProtocolError):
            pass  # those who wait are told below
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
                for exchange in list(self._exchanges.values()):
                    exchange.fail(EOFError("the upstream closed the connection"))
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            raise h2.exceptions.ProtocolError("it said good-bye")
        exchange = self._exchanges.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if exchange is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            exchange.status = dict(event.headers).get(b":status", b"").decode("latin-1")
        elif isinstance(event, h2.events.DataReceived):
            exchange.body += event.data
            if len(exchange.body) > wire.TCP_MAX:
                exchange.fail(OSError("an answer longer than any message"))
        elif isinstance(event, h2.events.StreamReset):
            exchange.fail(OSError("it took the answer back"))
        if isinstance(event, h2.events.StreamEnded):
            self._ended(exchange)

    def _ended(self, exchange: _Exchange) -> None:
        if exchange.status != "200":
            exchange.fail(OSError(f"HTTP status {exchange.status or 'missing'}"))
        elif not exchange.answer.done():
            reply = read_reply(exchange.body)
            exchange.answer.set_result(reply if reply and core.matches(exchange.asking, reply) else None)


def _client() -> h2.connection.H2Connection:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.local_settings = h2.settings.Settings(
        client=True, initial_values={h2.settings.SettingCodes.ENABLE_PUSH: 0}
    )
    return connection
