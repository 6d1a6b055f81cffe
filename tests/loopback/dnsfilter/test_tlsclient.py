"""Upstreams over TLS: one connection, verified, opened again when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dnslib import DNSRecord

from tests.loopback.dnsfilter.certificates import make_certificate
from tests.loopback.dnsfilter.upstream import address
from warren.dnsfilter.core import upstream as core
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream, parse_upstream
from warren.dnsfilter.core.verdict import Client, Kind
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.trust import Trust
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError


class TlsUpstream:
    """Answers every query on every connection; `each` says how many before it closes one."""

    def __init__(self) -> None:
        self.connections = 0
        self.sizes: list[int] = []
        self.each = 1000
        self.silent = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(EOFError, OSError):
            for _ in range(self.each):
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                self.sizes.append(len(data))
                if not self.silent:
                    message = address(DNSRecord.parse(data))
                    writer.write(len(message).to_bytes(2, "big") + message)
        writer.close()


@asynccontextmanager
async def resolving(directory: Path, name: str = "dns.test") -> AsyncIterator[tuple[Resolver, TlsUpstream]]:
    make_certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    upstream = TlsUpstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    config = ResolverConfig(groups={"default": Group((Upstream("127.0.0.1", port, name),))})
    resolver = Resolver(config, trust=Trust(str(directory / "cert.pem")))
    try:
        yield resolver, upstream
    finally:
        await resolver.close()
        server.close()


def run(tmp: Path, case: Callable[[Resolver, TlsUpstream], Awaitable[None]], name: str = "dns.test") -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), resolving(tmp, name) as (resolver, upstream):
            await case(resolver, upstream)

    asyncio.run(whole())


async def kind_of(resolver: Resolver, name: str) -> Kind:
    query = wire.build_query(1, wire.name_wire(name), wire.A)
    return (await resolver.resolve(query, Client())).verdict.kind


def test_many_questions_on_one_connection_all_of_one_size(tmp_path: Path) -> None:
    async def case(resolver: Resolver, upstream: TlsUpstream) -> None:
        kinds = await asyncio.gather(
            *(kind_of(resolver, f"{'n' * (number % 9)}{number}.example") for number in range(200))
        )
        assert set(kinds) == {Kind.FORWARDED} and upstream.connections == 1
        assert set(upstream.sizes) == {128}

    run(tmp_path, case)


def test_a_connection_that_was_closed_is_opened_again(tmp_path: Path) -> None:
    async def case(resolver: Resolver, upstream: TlsUpstream) -> None:
        upstream.each = 1
        for number in range(5):
            assert await kind_of(resolver, f"n{number}.example") is Kind.FORWARDED
        assert upstream.connections == 5

    run(tmp_path, case)


def test_a_connection_that_went_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "TRY_S", 0.2)

    async def case(resolver: Resolver, upstream: TlsUpstream) -> None:
        await kind_of(resolver, "a.example")
        upstream.silent = True
        assert await kind_of(resolver, "b.example") is Kind.FAILED
        upstream.silent = False
        assert await kind_of(resolver, "c.example") is Kind.FORWARDED and upstream.connections >= 2

    run(tmp_path, case)


def test_a_wrong_name_is_not_believed(tmp_path: Path) -> None:
    async def case(resolver: Resolver, upstream: TlsUpstream) -> None:
        assert await kind_of(resolver, "a.example") is Kind.FAILED
        assert upstream.sizes == []

    run(tmp_path, case, "other.test")


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("tls://192.0.2.1#dns.test", Upstream("192.0.2.1", 853, "dns.test")),
        ("tls://192.0.2.1:8853#Dns.Test", Upstream("192.0.2.1", 8853, "dns.test")),
        ("tls://[2001:db8::1]#dns.test", Upstream("2001:db8::1", 853, "dns.test")),
        ("tls://[2001:db8::1]:8853", Upstream("2001:db8::1", 8853, "2001:db8::1")),
        ("tls://192.0.2.1", Upstream("192.0.2.1", 853, "192.0.2.1")),
    ],
)
def test_how_they_are_written(text: str, upstream: Upstream) -> None:
    assert parse_upstream(text) == upstream


@pytest.mark.parametrize("text", ["tls://", "tls://name", "tls://192.0.2.1#a..b", "tls://192.0.2.1:0#a"])
def test_how_they_are_not_written(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_upstream(text)
