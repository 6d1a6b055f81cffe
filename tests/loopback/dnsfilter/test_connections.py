"""Connections by themselves: whatever bytes come, in whatever cuts."""

from __future__ import annotations

import asyncio
from typing import Any

import h2.config
import h2.connection
from hypothesis import given, settings
from hypothesis import strategies as st

from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.core.config import ResolverConfig
from warren.dnsfilter.front import Front
from warren.dnsfilter.https import HttpsProtocol
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.settings import LimitSettings
from warren.dnsfilter.streams import Connections, IdleProtocol, StreamProtocol
from warren.fabric.core import dnswire as wire

QUERY = wire.build_query(7, wire.name_wire("x.lan"), wire.A)


class FakeTransport:
    """Remembers what is written, and that it was ended."""

    def __init__(self) -> None:
        self.out = b""
        self.ended = False

    def get_extra_info(self, _: str) -> Any:
        return ("127.0.0.1", 5353)

    def write(self, data: bytes) -> None:
        self.out += data

    def abort(self) -> None:
        self.ended = True

    close = abort

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


def fed(https: bool, chunks: list[bytes]) -> FakeTransport:
    """A connection that was given those bytes."""

    async def whole() -> FakeTransport:
        resolver, transport, known = Resolver(ResolverConfig()), FakeTransport(), Connections()
        front = Front(resolver, ClientBook(()), LimitSettings())
        protocol: IdleProtocol = HttpsProtocol(front, known) if https else StreamProtocol(front, known, "tcp")
        protocol.connection_made(transport)  # type: ignore[arg-type]
        for chunk in chunks:
            if not transport.ended:
                protocol.data_received(chunk)  # type: ignore[attr-defined]
        known.close()
        await resolver.close()
        return transport

    return asyncio.run(whole())


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


def requests() -> bytes:
    """Two requests of a client, with its preface."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    for stream in (1, 3):
        fields = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/dns-query")]
        client.send_headers(stream, [*fields, ("content-type", "application/dns-message")])
        client.send_data(stream, QUERY, end_stream=True)
    return client.data_to_send()


FRAMED = len(QUERY).to_bytes(2, "big") + QUERY
REQUESTS = requests()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=10))
def test_cuts_do_not_matter(sizes: list[int]) -> None:
    assert fed(False, cut(FRAMED * 3, sizes)).out == fed(False, [FRAMED * 3]).out
    assert fed(True, cut(REQUESTS, sizes)).out.count(b"\x03lan") == fed(True, [REQUESTS]).out.count(b"\x03lan") > 0


def test_byte_by_byte() -> None:
    assert fed(False, cut(FRAMED, [1] * len(FRAMED))).out == fed(False, [FRAMED]).out
    whole = fed(True, [REQUESTS]).out.count(b"\x03lan")
    assert fed(True, cut(REQUESTS, [1] * len(REQUESTS))).out.count(b"\x03lan") == whole


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(REQUESTS)), st.booleans())
def test_rubbish_raises_nothing(rubbish: bytes, at: int, https: bool) -> None:
    fed(https, [(REQUESTS if https else FRAMED * 3)[:at], rubbish])


@settings(max_examples=100, deadline=None)
@given(st.integers(24, len(REQUESTS) - 1), st.integers(1, 255))
def test_one_wrong_byte_raises_nothing(at: int, by: int) -> None:
    broken = bytearray(REQUESTS)
    broken[at] ^= by
    fed(True, [bytes(broken)])
