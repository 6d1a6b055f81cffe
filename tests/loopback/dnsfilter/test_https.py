"""DNS over HTTPS: our server asked by `h2`, kdig and by our own client; and requests that are none."""

from __future__ import annotations

import asyncio
import base64
import shutil
import socket
import ssl
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from dnslib import DNSRecord

from tests.loopback.dnsfilter.certificates import make_certificate
from tests.loopback.dnsfilter.test_server import Running, command, run
from warren.dnsfilter import https
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream, parse_upstream
from warren.dnsfilter.core.verdict import Client, Kind
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.trust import Trust
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError

TYPE = "application/dns-message"


def listening(tmp: Path) -> str:
    make_certificate(tmp)
    return f'https: {{listen: ["127.0.0.1:0"], certificate: {tmp}/cert.pem, key: {tmp}/key.pem}}'


class Browser:
    """An HTTP/2 client that shows everything."""

    def __init__(self, tmp: Path, port: int) -> None:
        self._context = ssl.create_default_context(cafile=str(tmp / "cert.pem"))
        self._context.set_alpn_protocols(["h2"])
        self._port = port

    async def __aenter__(self) -> Browser:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, server_hostname="dns.test"
        )
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def send(self, method: str, path: str, body: bytes = b"", kind: str = TYPE) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", "dns.test"), (":path", path)]
        fields += [("content-type", kind)] if body else []
        self.h2.send_headers(stream, fields, end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)
        return stream

    async def answers(self, count: int) -> dict[int, tuple[dict[str, str], bytes]]:
        found: dict[int, Any] = {}
        ended = 0
        while ended < count:
            self.writer.write(self.h2.data_to_send())
            data = await self.reader.read(65536)
            if not data:
                raise EOFError
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    found[event.stream_id] = ({n.decode(): v.decode() for n, v in event.headers}, b"")
                elif isinstance(event, h2.events.DataReceived):
                    found[event.stream_id] = (found[event.stream_id][0], found[event.stream_id][1] + event.data)
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended += 1
        return found

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = TYPE) -> tuple[dict[str, str], bytes]:
        stream = self.send(method, path, body, kind)
        return (await self.answers(1))[stream]


def query(name: str, ident: int = 0) -> bytes:
    return wire.build_query(ident, wire.name_wire(name), wire.A)


def encoded(message: bytes) -> str:
    return base64.urlsafe_b64encode(message).rstrip(b"=").decode()


def test_get_and_post(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        async with Browser(tmp_path, under_test.ports[1]) as browser:
            fields, body = await browser.ask("POST", "/dns-query", query("www.example"))
            assert fields[":status"] == "200" and fields["content-type"] == TYPE
            assert fields["cache-control"] == "max-age=60" and str(DNSRecord.parse(body).rr[0].rdata) == "192.0.2.1"
            fields, body = await browser.ask("GET", f"/dns-query?dns={encoded(query('x.ads.example'))}")
            assert fields["cache-control"] == "max-age=60" and DNSRecord.parse(body).header.rcode == wire.NXDOMAIN

    run(tmp_path, case, listening(tmp_path))


def test_what_is_no_query(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        async with Browser(tmp_path, under_test.ports[1]) as browser:
            for status, *request in (
                ("404", "GET", "/"),
                ("404", "POST", "/dns-query/x", query("a.example")),
                ("400", "GET", "/dns-query"),
                ("400", "GET", "/dns-query?dns=!!!!"),
                ("400", "GET", "/dns-query?dns=AAAA"),
                ("414", "GET", "/dns-query?dns=" + "A" * 6000),
                ("405", "PUT", "/dns-query", query("a.example")),
                ("415", "POST", "/dns-query", query("a.example"), "text/plain"),
                ("413", "POST", "/dns-query", bytes(5000)),
                ("400", "POST", "/dns-query", bytes(3)),
            ):
                fields, _ = await browser.ask(*request)  # type: ignore[arg-type]
                assert fields[":status"] == status, request
            assert (await browser.ask("POST", "/dns-query", query("www.example")))[0][":status"] == "200"

    run(tmp_path, case, listening(tmp_path))


def test_many_requests_at_once_and_a_long_answer(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        async with Browser(tmp_path, under_test.ports[1]) as browser:
            streams = [browser.send("POST", "/dns-query", query(f"many{n}.example")) for n in range(90)]
            answers = await browser.answers(len(streams))
            assert all(len(DNSRecord.parse(answers[stream][1]).rr) == 100 for stream in streams)

    run(tmp_path, case, listening(tmp_path))


def test_who_takes_requests_back_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "RESETS_MAX", 20)

    async def case(under_test: Running) -> None:
        async with Browser(tmp_path, under_test.ports[1]) as browser:
            for n in range(30):
                browser.h2.reset_stream(browser.send("POST", "/dns-query", query(f"silent{n}.example")))
            with pytest.raises((EOFError, ConnectionError)):
                await browser.answers(1)
        async with Browser(tmp_path, under_test.ports[1]) as browser:
            assert (await browser.ask("POST", "/dns-query", query("www.example")))[0][":status"] == "200"

    run(tmp_path, case, listening(tmp_path))


def test_rubbish_ends_its_own_connection_only(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        async with Browser(tmp_path, under_test.ports[1]) as browser:
            browser.writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
            while await browser.reader.read(1024):
                pass
        async with Browser(tmp_path, under_test.ports[1]) as browser:
            assert (await browser.ask("POST", "/dns-query", query("www.example")))[0][":status"] == "200"

    run(tmp_path, case, listening(tmp_path))


@pytest.mark.skipif(shutil.which("kdig") is None, reason="needs kdig")
def test_kdig(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        kdig = ("kdig", "@127.0.0.1", "-p", str(under_test.ports[1]), "+https", "+timeout=3")
        for more in ((), ("+https-get",)):
            assert "192.0.2.1" in await command(*kdig, *more, "www.example")
        assert "NXDOMAIN" in await command(*kdig, "+padding=128", "x.ads.example")

    run(tmp_path, case, listening(tmp_path))


# ---------------------------------------------------------------------------------------------------- towards upstreams


def test_our_client_asks_our_server(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        upstream = Upstream("127.0.0.1", under_test.ports[1], "dns.test", "/dns-query")
        config = ResolverConfig(groups={"default": Group((upstream,))})
        resolver = Resolver(config, trust=Trust(str(tmp_path / "cert.pem")))
        try:
            asked = (resolver.resolve(query(f"n{n}.example", n), Client()) for n in range(150))
            answers = await asyncio.gather(*asked)
            assert {answer.verdict.kind for answer in answers} == {Kind.FORWARDED}
            assert [int.from_bytes(answer.message[:2], "big") for answer in answers] == list(range(150))
            long = await resolver.resolve(query("many.example"), Client(), "tcp")
            assert len(DNSRecord.parse(long.message).rr) == 100
            (connection,) = resolver.forwarder._connections.values()
            connection._writer.transport.abort()  # type: ignore[union-attr]
            again = await resolver.resolve(query("again.example"), Client())
            assert again.verdict.kind is Kind.FORWARDED and again.verdict.upstream == upstream.text
        finally:
            await resolver.close()

    run(tmp_path, case, listening(tmp_path))


def test_a_certificate_for_another_name_is_not_believed(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        upstream = Upstream("127.0.0.1", under_test.ports[1], "other.test", "/dns-query")
        resolver = Resolver(
            ResolverConfig(groups={"default": Group((upstream,))}), trust=Trust(str(tmp_path / "cert.pem"))
        )
        try:
            answer = await resolver.resolve(query("www.example"), Client())
            assert answer.verdict.kind is Kind.FAILED and "certificate" in answer.verdict.rule
        finally:
            await resolver.close()

    run(tmp_path, case, listening(tmp_path))


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("https://192.0.2.1", Upstream("192.0.2.1", 443, "192.0.2.1", "/dns-query")),
        ("https://192.0.2.1/q#dns.example", Upstream("192.0.2.1", 443, "dns.example", "/q")),
        (
            "https://[2001:db8::1]:8443/dns-query#dns.example",
            Upstream("2001:db8::1", 8443, "dns.example", "/dns-query"),
        ),
    ],
)
def test_how_they_are_written(text: str, upstream: Upstream) -> None:
    assert parse_upstream(text) == upstream
    assert parse_upstream(upstream.text) == upstream


@pytest.mark.parametrize(
    "text", ["https://dns.example/dns-query", "tls://192.0.2.1/path#a.example", "http://192.0.2.1"]
)
def test_how_they_are_not_written(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_upstream(text)


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = listening(tmp_path).replace("127.0.0.1:0", f"127.0.0.1:{port}")
        with pytest.raises(ConfigError, match="another resolver is there"):

            async def case(_: Running) -> None:
                raise AssertionError

            run(tmp_path, case, text)
