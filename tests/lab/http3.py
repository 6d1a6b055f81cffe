"""An HTTP/3 server and client (RFC 9114), as an app that brings its own QUIC.

python http3.py serve ADDRESS PORT CHAIN KEY      every path is a number: so many bytes of a pattern
python http3.py fetch NAME PORT ROOT SIZE ...     all at once on one connection; prints the SHA-256 of each
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent

NAME = "lab.test"


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Server(QuicConnectionProtocol):  # type: ignore[misc]  # aioquic's asyncio layer is untyped here
    http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        for one in self.http.handle_event(event) if self.http is not None else ():
            if isinstance(one, HeadersReceived) and self.http is not None:
                size = int(dict(one.headers)[b":path"][1:])
                self.http.send_headers(one.stream_id, [(b":status", b"200")])
                self.http.send_data(one.stream_id, content(size), end_stream=True)
                self.transmit()


class Client(QuicConnectionProtocol):  # type: ignore[misc]
    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self.http = H3Connection(self._quic)
        self.bodies: dict[int, Any] = {}
        self.over: dict[int, asyncio.Future[str]] = {}

    def get(self, size: int) -> asyncio.Future[str]:
        stream = self._quic.get_next_available_stream_id()
        asked = {b":method": b"GET", b":scheme": b"https", b":authority": NAME.encode(), b":path": b"/%d" % size}
        self.http.send_headers(stream, list(asked.items()), end_stream=True)
        self.bodies[stream] = hashlib.sha256()
        self.over[stream] = asyncio.get_running_loop().create_future()
        self.transmit()
        return self.over[stream]

    def quic_event_received(self, event: QuicEvent) -> None:
        for one in self.http.handle_event(event):
            if isinstance(one, DataReceived):
                self.bodies[one.stream_id].update(one.data)
                if one.stream_ended:
                    self.over[one.stream_id].set_result(self.bodies[one.stream_id].hexdigest())


async def serving(address: str, port: str, chain: str, key: str) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(chain, key)
    await serve(address, int(port), configuration=configuration, create_protocol=Server)
    print("serving", flush=True)
    await asyncio.Event().wait()


async def fetching(name: str, port: str, root: str, *sizes: str) -> None:
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=NAME)
    configuration.load_verify_locations(root)
    async with connect(name, int(port), configuration=configuration, create_protocol=Client) as client:
        print(*await asyncio.gather(*(client.get(int(size)) for size in sizes)))


if __name__ == "__main__":
    asyncio.run((serving if sys.argv[1] == "serve" else fetching)(*sys.argv[2:]))
