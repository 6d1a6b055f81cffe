"""What comes goes back, over UDP and TCP.    python -m warren.lab.echo --listen 10.10.0.10 --port 7"""

from __future__ import annotations

import argparse
import asyncio
import socket
from contextlib import suppress


def datagram(sock: socket.socket) -> None:
    data, source = sock.recvfrom(1 << 16)
    with suppress(OSError):  # nobody there any more, or no room to send
        sock.sendto(data, source)


async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve(address: str, port: int) -> None:
    datagrams = socket.socket(
        socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
    )  # asyncio's own transport sends no empty ones
    datagrams.setblocking(False)
    datagrams.bind((address, port))
    asyncio.get_running_loop().add_reader(datagrams, datagram, datagrams)
    server = await asyncio.start_server(connection, address, port)
    print(f"echoing on {address} port {port}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m warren.lab.echo", description="What comes goes back.")
    parser.add_argument("--listen", required=True, metavar="ADDRESS", help="address to answer on")
    parser.add_argument("--port", type=int, default=7, help="UDP and TCP port")
    given = parser.parse_args()
    asyncio.run(serve(given.listen, given.port))


if __name__ == "__main__":
    main()
