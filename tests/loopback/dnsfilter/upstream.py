"""An upstream on loopback, UDP and TCP on one port, that answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dnslib import RR, A, DNSRecord

Answering = Callable[[DNSRecord, str], "bytes | list[bytes] | None"]
"""(query, "udp" or "tcp") → message, several, or silence."""


def address(query: DNSRecord, ip: str = "192.0.2.1", ttl: int = 60, count: int = 1) -> bytes:
    reply = query.reply()
    for number in range(count):
        octets = ip.split(".")
        octets[3] = str(int(octets[3]) + number)
        reply.add_answer(RR(query.q.qname, rdata=A(".".join(octets)), ttl=ttl))
    return bytes(reply.pack())


class FakeUpstream(asyncio.DatagramProtocol):
    """`asked` holds (transport, name as asked) of every query."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.asked: list[tuple[str, str]] = []
        self.port = 0

    async def __aenter__(self) -> FakeUpstream:
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._server.close()

    def _answers(self, data: bytes, transport: str) -> list[bytes]:
        query = DNSRecord.parse(data)
        self.asked.append((transport, str(query.q.qname)))
        said = self.answering(query, transport)
        return said if isinstance(said, list) else [said] if said is not None else []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for message in self._answers(data, "udp"):
            self._udp.sendto(message, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            for message in self._answers(await reader.readexactly(size), "tcp"):
                writer.write(len(message).to_bytes(2, "big") + message)
            await writer.drain()
        except EOFError:
            pass
        finally:
            writer.close()
