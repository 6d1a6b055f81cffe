"""What the QUIC engine costs, each side apart: aioquic bare, and through our adapter with an 8-byte header.

    python -m tests.bench.engine [megabytes] [rounds]

One stream from client to server in memory, no sockets, 1444-byte datagrams. Prints processor time for each side and
for each packet, the best of the rounds; only ratios within one run mean anything.
"""

from __future__ import annotations

import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived
from aioquic.tls import CipherSuite

from tests.certificates import SERVER_NAME, certificates
from warren.fabric.core.engine import ClientConfig, Limits, Readable, ServerConfig
from warren.fabric.engines import engine
from warren.fabric.engines.aioquic.credentials import identity

SIZE = 1444
HEADER = b"\x01CIRCUIT"
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


def bare(total: int, stock: bool) -> Cost:
    """The library alone; `stock`: with its own order of ciphers and with its log calls."""
    shown = certificates()
    common: dict[str, Any] = dict(
        alpn_protocols=["x"],
        max_data=64 << 20,
        max_stream_data=16 << 20,
        max_datagram_size=SIZE,
        congestion_control_algorithm="cubic",
    )
    if not stock:
        common["cipher_suites"] = [CipherSuite.AES_128_GCM_SHA256]
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


def adapted(total: int) -> Cost:
    """The same through `Connection`, header and GSO batches included."""
    shown = certificates()
    limits = Limits(size=SIZE)
    engines = engine()
    client = engines.connect(ClientConfig("x", SERVER_NAME, shown.root, limits), clock())
    first = client.transmit(clock())
    assert first is not None
    served = ServerConfig(("x",), shown.chain, shown.key, limits)
    server = engines.accept(served, first.parts[0], clock())
    assert server is not None
    server.receive(first.parts[0], 0, b"", clock())
    spent = [0.0, 0.0]
    got = packets = 0

    def turn(sender: Any, receiver: Any, one: int, other: int) -> None:
        nonlocal got, packets
        while True:
            now, begun = clock(), spent_so_far()
            batch = sender.transmit(now, HEADER)
            at = sender.timer() if batch is None else None
            spent[one] += spent_so_far() - begun
            if batch is None:
                break
            packets += batch.segments
            buffer = b"".join(batch.parts)
            begun = spent_so_far()
            receiver.receive(buffer, batch.stride if batch.segments > 1 else 0, HEADER, now)
            while (event := receiver.poll_event()) is not None:
                if isinstance(event, Readable):
                    got += len(receiver.read(event.stream, 1 << 20))
            receiver.timer()
            spent[other] += spent_so_far() - begun
        begun = spent_so_far()
        if at is not None and at <= now:
            sender.handle_timer(now)
        spent[one] += spent_so_far() - begun

    def both() -> None:
        turn(client, server, 0, 1)
        turn(server, client, 1, 0)

    for _ in range(50):
        both()
        time.sleep(0.001)
    spent[:] = [0.0, 0.0]
    packets = 0
    stream = client.open_stream()
    assert stream is not None
    sent = 0
    while got < total:
        begun = spent_so_far()
        while sent < total and client.write(stream, BLOB) == len(BLOB):
            sent += len(BLOB)
        spent[0] += spent_so_far() - begun
        both()
    return Cost(spent[0], spent[1], packets, got)


def main(megabytes: int = 20, rounds: int = 3) -> None:
    """Runs all and prints a line for each."""
    total = megabytes * len(BLOB) * 16
    kinds: list[tuple[str, Callable[[], Cost]]] = [
        ("aioquic as it comes", lambda: bare(total, True)),
        ("aioquic, AES-128", lambda: bare(total, False)),
        ("through the adapter", lambda: adapted(total)),
    ]
    best: dict[str, Cost] = {}
    for _ in range(rounds):
        for name, run in kinds:
            cost = run()
            if name not in best or sum(cost[:2]) < sum(best[name][:2]):
                best[name] = cost
    for name, cost in best.items():
        rates = [cost.delivered * 8e-6 / side for side in cost[:2]]
        print(
            f"{name:20} sender {rates[0]:4.0f} Mbit/s a core, receiver {rates[1]:4.0f}, packets {cost.packets}, "
            f"{sum(cost[:2]) / cost.packets * 1e6:5.1f} µs a packet"
        )
    plain, ours = best["aioquic, AES-128"], best["through the adapter"]
    more = [mine / theirs - 1 for mine, theirs in zip(ours[:2], plain[:2], strict=True)]
    print(f"adapter over bare: sender {more[0]:+.0%}, receiver {more[1]:+.0%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
