"""Replies that are no replies, cookies at both ends, and what must not leave the house: byte by byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dnslib import DNSRecord

from tests.loopback.dnsfilter.test_server import Running
from tests.loopback.dnsfilter.test_server import run as run_server
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream
from warren.dnsfilter.core.verdict import Client, Kind, Resolved
from warren.dnsfilter.resolver import Resolver
from warren.fabric.core import dnswire as wire

GOOD, FORGED = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 66))
SERVER_COOKIE = b"sixteen bytes ok"
Answering = Callable[[bytes, str], "list[bytes]"]
"""(query, "udp" or "tcp") → messages."""


class RawUpstream(asyncio.DatagramProtocol):
    """Bytes in, bytes out. `asked` holds (transport, query)."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.asked: list[tuple[str, bytes]] = []
        self.peers: list[tuple[str, int]] = []

    async def __aenter__(self) -> RawUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._server.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(("udp", data))
        self.peers.append(addr)
        for message in self._answering(data, "udp"):
            self._udp.sendto(message, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        data = await reader.readexactly(size)
        self.asked.append(("tcp", data))
        for message in self._answering(data, "tcp"):
            writer.write(len(message).to_bytes(2, "big") + message)
        await writer.drain()
        writer.close()


def question_of(data: bytes) -> wire.Question:
    question = wire.read_question(data)
    assert isinstance(question, wire.Question)
    return question


def good(data: bytes, rdata: bytes = GOOD, cookie: bytes = b"", rcode: int = 0) -> bytes:
    message = wire.answer(question_of(data), rcode, records=[wire.Record(wire.A, rdata, 60)] if not rcode else [])
    return wire.with_option(message, wire.OPTION_COOKIE, cookie) if cookie else message


@asynccontextmanager
async def asking(answering: Answering) -> AsyncIterator[tuple[Resolver, RawUpstream]]:
    async with RawUpstream(answering) as upstream:
        resolver = Resolver(ResolverConfig(groups={"default": Group((Upstream("127.0.0.1", upstream.port),))}))
        try:
            yield resolver, upstream
        finally:
            await resolver.close()


def run(case: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(case(), 30))  # type: ignore[arg-type]


async def ask(resolver: Resolver, name: str = "a.example", transport: str = "udp") -> Resolved:
    return await resolver.resolve(wire.build_query(7, wire.name_wire(name), wire.A), Client(), transport)


def found(resolved: Resolved) -> list[str]:
    return [str(record.rdata) for record in DNSRecord.parse(resolved.message).rr]


def chained_pointers(data: bytes) -> bytes:
    """An answer whose owner is a chain of pointers, each to the one before, with a loop at its end."""
    head = data[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + data[12 : question_of(data).end]
    start, chain = len(head), b""
    for number in range(600):
        chain += (0xC000 | (start + 2 * max(number - 1, 0))).to_bytes(2, "big")
    return head + chain + b"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + FORGED


def oversized_name(data: bytes) -> bytes:
    head = data[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + data[12 : question_of(data).end]
    return head + (b"\x3f" + b"x" * 63) * 5 + b"\x00" + b"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + FORGED


def cname_loop(data: bytes) -> bytes:
    question = question_of(data)
    return wire.answer(question, records=[wire.Record(wire.CNAME, question.name, 60)])


@pytest.mark.parametrize("bad", [chained_pointers, oversized_name], ids=lambda bad: str(bad.__name__))
def test_a_reply_that_breaks_bounds_is_none(bad: Callable[[bytes], bytes]) -> None:
    async def case() -> None:
        async with asking(lambda data, _: [bad(data), good(data)]) as (resolver, _):
            assert found(await ask(resolver)) == ["192.0.2.1"]

    run(case)


def test_an_alias_of_itself_ends() -> None:
    async def case() -> None:
        async with asking(lambda data, _: [cname_loop(data)]) as (resolver, _):
            assert (await ask(resolver)).verdict.kind is Kind.FORWARDED

    run(case)


def test_64_kib_come_through_and_push_nothing_out() -> None:
    def answering(data: bytes, transport: str) -> list[bytes]:
        question = question_of(data)
        if question.name.startswith(b"\x05small"):
            return [good(data)]
        if transport == "udp":
            return [wire.answer(question, records=[wire.Record(wire.A, GOOD, 60)], limit=0)]
        return [
            wire.answer(
                question, records=[wire.Record(wire.A, bytes((198, 18, n >> 8, n & 255)), 60, b"") for n in range(4000)]
            )
        ]

    async def case() -> None:
        async with asking(answering) as (resolver, _):
            await ask(resolver, "small.example")
            big = await resolver.resolve(wire.build_query(7, wire.name_wire("big.example"), wire.A), Client(), "tcp")
            assert len(big.message) > 63_000
            cut = await resolver.resolve(wire.build_query(7, wire.name_wire("big.example"), wire.A), Client())
            assert len(cut.message) < 512 and cut.message[2] & 2  # TC
            assert (await ask(resolver, "small.example")).verdict.kind is Kind.CACHED

    run(case)


def test_a_reply_from_another_port_does_not_arrive() -> None:
    waiting: asyncio.Future[bytes]

    async def case() -> None:
        nonlocal waiting
        waiting = asyncio.get_running_loop().create_future()

        def silent(data: bytes, _: str) -> list[bytes]:
            if not waiting.done():
                waiting.set_result(data)
                return []
            return [good(data)]

        async with asking(silent) as (resolver, upstream):
            task = asyncio.create_task(ask(resolver))
            data = await waiting
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                for _ in range(30):
                    other.sendto(good(data, FORGED), upstream.peers[0])
            assert found(await task) == ["192.0.2.1"]

    run(case)


def test_ids_ports_and_case_are_drawn_anew() -> None:
    async def case() -> None:
        async with asking(lambda data, _: [good(data)]) as (resolver, upstream):
            await asyncio.gather(*(ask(resolver, f"abcdefgh{n}.example") for n in range(64)))
            queries = [data for _, data in upstream.asked]
            assert len({data[:2] for data in queries}) > 50 and len({port for _, port in upstream.peers}) > 50
            assert len({data[13:21] for data in queries}) > 30

    run(case)


# ------------------------------------------------------------------------------------------------- cookies, as a client


def test_a_cookie_is_sent_learnt_and_sent_back() -> None:
    def answering(data: bytes, _: str) -> list[bytes]:
        ours = question_of(data).cookie[:8]
        forged = good(data, FORGED, b"not ours" + SERVER_COOKIE)
        return [forged, good(data, cookie=ours + SERVER_COOKIE)]

    async def case() -> None:
        async with asking(answering) as (resolver, upstream):
            for name in ("a.example", "b.example"):
                assert found(await ask(resolver, name)) == ["192.0.2.1"]
            first, second = (question_of(data).cookie for _, data in upstream.asked)
            assert len(first) == 8 and second == first + SERVER_COOKIE

    run(case)


def test_a_reply_without_the_cookie_that_was_given_is_believed_over_tcp_only() -> None:
    def answering(data: bytes, transport: str) -> list[bytes]:
        cookie = question_of(data).cookie
        if question_of(data).name.startswith(b"\x01a"):
            return [good(data, cookie=cookie[:8] + SERVER_COOKIE)]
        return [good(data, GOOD if transport == "tcp" else FORGED)]

    async def case() -> None:
        async with asking(answering) as (resolver, upstream):
            for name in ("a.example", "b.example"):
                assert found(await ask(resolver, name)) == ["192.0.2.1"]
            assert [transport for transport, _ in upstream.asked] == ["udp", "udp", "tcp"]

    run(case)


def test_a_server_that_wants_its_new_cookie_gets_it() -> None:
    def answering(data: bytes, _: str) -> list[bytes]:
        cookie = question_of(data).cookie
        if cookie[8:] != SERVER_COOKIE:
            return [good(data, cookie=cookie[:8] + SERVER_COOKIE, rcode=wire.BADCOOKIE)]
        return [good(data, cookie=cookie)]

    async def case() -> None:
        async with asking(answering) as (resolver, upstream):
            assert found(await ask(resolver)) == ["192.0.2.1"]
            assert found(await ask(resolver, "b.example")) == ["192.0.2.1"]
            assert [transport for transport, _ in upstream.asked] == ["udp", "tcp", "udp"]

    run(case)


def test_a_server_that_stumbles_over_cookies_gets_none() -> None:
    def answering(data: bytes, _: str) -> list[bytes]:
        return [good(data, rcode=wire.FORMERR if question_of(data).cookie else 0)]

    async def case() -> None:
        async with asking(answering) as (resolver, _):
            for name in ("a.example", "b.example"):
                assert found(await ask(resolver, name)) == ["192.0.2.1"]

    run(case)


# ------------------------------------------------------------------------------------------------- cookies, as a server


def exchange(udp: socket.socket, message: bytes) -> DNSRecord | None:
    udp.send(message)
    try:
        return DNSRecord.parse(udp.recv(4096))
    except TimeoutError:
        return None


def cookie_in(answer: DNSRecord | None) -> bytes:
    assert answer is not None
    return next(bytes(option.data) for option in answer.ar[0].rdata if option.code == wire.OPTION_COOKIE)


def test_who_shows_our_cookie_is_answered_when_others_ask_in_its_name(tmp_path: Path) -> None:
    def case(port: int) -> None:
        query = wire.build_query(9, wire.name_wire("x.ads.example"), wire.A)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(0.5)
            udp.connect(("127.0.0.1", port))
            cookie = cookie_in(exchange(udp, wire.with_option(query, wire.OPTION_COOKIE, b"my eight")))
            assert cookie[:8] == b"my eight" and len(cookie) == 24
            for _ in range(20):
                udp.send(query)
            while exchange(udp, query) is not None:
                pass
            told = exchange(udp, wire.with_option(query, wire.OPTION_COOKIE, b"my eight"))
            assert told is not None and told.header.rcode == wire.BADCOOKIE & 15
            assert cookie_in(told) == cookie
            answered = exchange(udp, wire.with_option(query, wire.OPTION_COOKIE, cookie))
            assert answered is not None and answered.header.rcode == wire.NXDOMAIN

    async def whole(under_test: Running) -> None:
        await asyncio.to_thread(case, under_test.ports[0])

    run_server(tmp_path, whole, "limit: {per_second: 0, burst: 5}")


def test_no_client_subnet_goes_out_or_comes_back() -> None:
    async def case() -> None:
        async with asking(lambda data, _: [good(data)]) as (resolver, upstream):
            subnet = b"\x00\x01\x18\x00\xc0\x00\x02"
            query = wire.with_option(wire.build_query(7, wire.name_wire("a.example"), wire.A), 8, subnet)
            resolved = await resolver.resolve(query, Client())
            assert found(resolved) == ["192.0.2.1"] and subnet not in resolved.message
            assert subnet[4:] not in upstream.asked[0][1]

    run(case)
