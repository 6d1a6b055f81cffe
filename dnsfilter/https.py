"""Queries over HTTPS (RFC 8484): HTTP/2, `h2` does the protocol.

1. `data_received` hands bytes to `h2`; its events gather requests (`_Request`), bounded in number and size.
2. A request that is complete becomes a query (`core/doh.py`), or an HTTP error.
3. `_reply` sends the answer as far as the client's windows are open; the rest goes as they open (`_pour`).
"""

from __future__ import annotations

import asyncio
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from warren.dnsfilter.core import doh
from warren.dnsfilter.core.verdict import Resolved
from warren.dnsfilter.front import Front
from warren.dnsfilter.streams import Connections, IdleProtocol
from warren.fabric.core import dnswire as wire

STREAMS_MAX: Final = 100
"""Requests at once on one connection (RFC 9113, section 6.5.2, advises no less)."""
HEADERS_MAX: Final = 8192
"""Bytes of one request's header fields; a GET of 4 KiB has 6."""
RESETS_MAX: Final = 200
"""Requests that a client may take back on one connection: resetting is cheaper for it than for us (CVE-2023-44487)."""


class _Request:
    """One request on its way in, then its answer on its way out."""

    __slots__ = ("body", "fields", "rest", "taken")

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        self.body = b""
        self.taken = False
        self.rest = b""


class HttpsProtocol(IdleProtocol):
    """One connection."""

    def __init__(self, front: Front, connections: Connections) -> None:
        super().__init__(front, connections, "https")
        # What we send needs no check of ours: a tenth of the time of an answer.
        ours = h2.config.H2Configuration(
            client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = h2.connection.H2Connection(ours)
        self._requests: dict[int, _Request] = {}
        self._resets = 0
        self._in_turn = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEADERS_MAX,
            },
        )
        self._h2.decoder.max_header_list_size = HEADERS_MAX
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._in_turn = True
        try:
            for event in self._h2.receive_data(data):
                self._on(event)
        except h2.exceptions.ProtocolError:
            self._leave()
            return
        finally:
            self._in_turn = False
        self._flush()

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            self._requests[event.stream_id] = _Request(fields)
        elif isinstance(event, h2.events.DataReceived):
            self._on_data(event)
        elif isinstance(event, h2.events.WindowUpdated):
            self._on_window(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._requests.pop(event.stream_id, None)
            self._resets += 1
            if self._resets > RESETS_MAX:
                self._leave()
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.abort()
        if isinstance(event, h2.events.StreamEnded):
            self._on_end(event.stream_id)

    def _on_data(self, event: h2.events.DataReceived) -> None:
        request = self._requests.get(event.stream_id)
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if request is None or request.taken:
            return
        request.body += event.data
        if len(request.body) > wire.QUERY_MAX:
            request.taken = True
            self._respond(event.stream_id, 413, b"longer than any query\n", "text/plain")

    def _on_window(self, stream: int) -> None:
        for waiting in [stream] if stream else list(self._requests):
            self._pour(waiting)

    def _on_end(self, stream: int) -> None:
        request = self._requests.get(stream)
        if request is None or request.taken:
            return
        request.taken = True
        query = doh.query_of(request.fields, request.body)
        if isinstance(query, doh.Refused):
            self._respond(stream, query.status, query.text.encode() + b"\n", "text/plain")
        else:
            self._take(query, stream)

    def _reply(self, handle: int, message: bytes, resolved: Resolved | None) -> None:
        if message:
            self._respond(handle, 200, message, doh.MEDIA_TYPE, doh.freshness(message))
        else:
            self._respond(handle, 429 if resolved is None else 400, b"", "text/plain")

    def _respond(self, stream: int, status: int, body: bytes, kind: str, fresh: int = 0) -> None:
        request = self._requests.get(stream)
        if request is None:  # taken back
            return
        fields = [
            (":status", str(status)),
            ("content-type", kind),
            ("cache-control", f"max-age={fresh}" if status == 200 else "no-store"),
        ]
        if status == 405:
            fields.append(("allow", "GET, POST"))
        try:
            self._h2.send_headers(stream, fields, end_stream=not body)
        except h2.exceptions.ProtocolError:
            self._requests.pop(stream, None)
            return
        request.rest = body
        if body:
            self._pour(stream)
        else:
            self._requests.pop(stream, None)
        if not self._in_turn:
            self._flush()

    def _pour(self, stream: int) -> None:
        """As much of the answer as the client's windows let through."""
        request = self._requests.get(stream)
        try:
            while request is not None and request.rest:
                room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
                if room <= 0:
                    return
                part, request.rest = request.rest[:room], request.rest[room:]
                self._h2.send_data(stream, part, end_stream=not request.rest)
                if not request.rest:
                    del self._requests[stream]
        except h2.exceptions.ProtocolError:
            self._requests.pop(stream, None)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    def _leave(self) -> None:
        """What the client sends is no HTTP/2, or too much of it: say so and go."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
