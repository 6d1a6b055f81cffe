"""An upstream that answers every question with one address: `python -m tests.bench.dns.upstream PORT`.

It copies header and question and knows nothing else, so that as little as possible of a forwarded query is its own.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading

import uvloop

ANSWER = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\xc0\x00\x02\x01"
"""192.0.2.1, for an hour, for the name in the question."""
HEADER = b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
NOTHING = b"\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00"


def answer(query: bytes) -> bytes:
    end = query.index(b"\x00", 12) + 5
    if query[end - 3 : end - 2] == b"\x01":  # A
        return query[:2] + HEADER + query[12:end] + ANSWER
    return query[:2] + NOTHING + query[12:end]


def over_udp(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        udp.bind(("127.0.0.1", port))
        while True:
            query, source = udp.recvfrom(4096)
            udp.sendto(answer(query), source)


async def over_tcp(port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                said = answer(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
                writer.write(len(said).to_bytes(2, "big") + said)
        except (EOFError, OSError):
            writer.close()

    await (await asyncio.start_server(serve, "127.0.0.1", port)).serve_forever()


if __name__ == "__main__":
    threading.Thread(target=over_udp, args=(int(sys.argv[1]),), daemon=True).start()
    uvloop.run(over_tcp(int(sys.argv[1])))
