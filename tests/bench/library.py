"""aioquic as it comes, without our adapter: what the pure-Python engine is measured against.

One stream from client to server in memory, no sockets, 1444-byte datagrams; processor time of each side apart.
"""

from __future__ import annotations

import ssl
import time
from typing import Any, NamedTuple

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived

from tests.certificates import certificates
from warren.fabric.engines.aioquic.credentials import identity

SIZE = 1444
BLOB = bytes(65_536)
clock = time.perf_counter
spent_so_far = time.process_time
"""Processor time: what others do on the machine does not count."""


class Cost(NamedTuple):
    """Seconds of the sender, seconds of the receiver, packets both ways, bytes delivered."""

    sender: float
    receiver: float
    packets: int
    delivered: int


def bare(total: int) -> Cost:
    """`total` bytes of one stream."""
    shown = certificates()
    common: dict[str, Any] = dict(
        alpn_protocols=["x"],
        max_data=64 << 20,
        max_stream_data=16 << 20,
        max_datagram_size=SIZE,
        congestion_control_algorithm="cubic",
    )
    asked = QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, **common)
    leaf, between, key = identity(shown.chain, shown.key)
    served = QuicConfiguration(is_client=False, certificate=leaf, certificate_chain=between, private_key=key, **common)
    client = QuicConnection(configuration=asked)
    here, there = ("client", 1), ("server", 1)
    client.connect(there, now=clock())
    first = client.datagrams_to_send(now=clock())
    start = first[0][0]
    server = QuicConnection(configuration=served, original_destination_connection_id=start[6 : 6 + start[5]])
    server.receive_datagram(start, here, now=clock())
    spent = [0.0, 0.0]
    got = packets = 0

    def turn(sender: QuicConnection, receiver: QuicConnection, address: Any, one: int, other: int) -> None:
        nonlocal got, packets
        now, begun = clock(), spent_so_far()
        datagrams = sender.datagrams_to_send(now=now)
        spent[one] += spent_so_far() - begun
        packets += len(datagrams)
        begun = spent_so_far()
        for datagram, _ in datagrams:
            receiver.receive_datagram(datagram, address, now=now)
        event = receiver.next_event()
        while event is not None:
            if isinstance(event, StreamDataReceived):
                got += len(event.data)
            event = receiver.next_event()
        receiver.get_timer()
        spent[other] += spent_so_far() - begun
        begun = spent_so_far()
        at = sender.get_timer()
        if at is not None and at <= now:
            sender.handle_timer(now=now)
        spent[one] += spent_so_far() - begun

    def both() -> None:
        turn(client, server, here, 0, 1)
        turn(server, client, there, 1, 0)

    for _ in range(50):
        both()
        time.sleep(0.001)
    spent[:] = [0.0, 0.0]
    packets = 0
    stream = client.get_next_available_stream_id()
    sent = 0
    while got < total:
        while sent < total and sent - got < 1 << 20:
            begun = spent_so_far()
            client.send_stream_data(stream, BLOB)
            spent[0] += spent_so_far() - begun
            sent += len(BLOB)
        both()
    return Cost(spent[0], spent[1], packets, got)
