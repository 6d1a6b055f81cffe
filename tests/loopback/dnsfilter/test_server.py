"""The server with real clients: dig and kdig, and sockets that misbehave."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dnslib import DNSRecord

from tests.loopback.dnsfilter.certificates import make_certificate
from tests.loopback.dnsfilter.upstream import FakeUpstream, address
from warren.dnsfilter import app, querylog, streams
from warren.dnsfilter.settings import parse
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError

FLOOD = """
import os, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.2", 0))
sock.connect(("127.0.0.1", int(sys.argv[1])))
begin, sent = time.monotonic(), 0
while sent < 10000:
    for _ in range(100):
        name = b"\\x06silent" + b"\\x0c" + os.urandom(6).hex().encode() + b"\\x07example\\x00"
        sock.send(os.urandom(2) + b"\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0" + name + b"\\0\\x01\\0\\x01")
    sent += 100
    time.sleep(max(0, begin + sent / 10000 - time.monotonic()))
print(sent)
"""
LIST = "||ads.example^\n0.0.0.0 tracker.example\n"


class Running:
    """A server under test: its ports in the order of the configuration."""

    def __init__(self, ports: list[int], upstream: FakeUpstream, state: Path) -> None:
        self.ports = ports
        self.upstream = upstream
        self.state = state


def answering(q: DNSRecord, _: str) -> bytes | None:
    name = str(q.q.qname).lower()
    return None if name.startswith("silent") else address(q, count=100 if name.startswith("many") else 1)


@asynccontextmanager
async def running(tmp: Path, extra: str = "") -> AsyncIterator[Running]:
    (tmp / "ads.txt").write_text(LIST)
    async with FakeUpstream(answering) as upstream:
        text = f"""
listen: ["127.0.0.1:0"]
upstreams: ["127.0.0.1:{upstream.port}"]
state: {tmp}/state
lists: [{{name: ads, source: {tmp}/ads.txt}}]
clients: [{{networks: [127.0.0.0/8], device: desk, user: ann}}]
{extra}
"""
        ports: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        settings = parse(text.encode(), "dns.yaml")
        task = asyncio.create_task(app.serve(settings, stop, ready=ports.set_result))
        done, _ = await asyncio.wait({task, ports}, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            await task
        try:
            yield Running(ports.result(), upstream, tmp / "state")
        finally:
            stop.set()
            await task


def run(tmp: Path, case: Callable[[Running], Awaitable[None]], extra: str = "") -> None:
    async def whole() -> None:
        async with asyncio.timeout(30), running(tmp, extra) as under_test:
            await case(under_test)

    asyncio.run(whole())


def flooding(port: int) -> subprocess.Popen[bytes]:
    """Ten thousand different names within a second."""
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", FLOOD, str(port)], stdout=subprocess.PIPE)


async def command(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig")
def test_dig(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        dig = ("dig", "@127.0.0.1", "-p", str(under_test.ports[0]), "+time=2", "+tries=1")
        assert "192.0.2.1" in await command(*dig, "www.example")
        blocked = await command(*dig, "x.ads.example")
        assert "NXDOMAIN" in blocked and "EDE: 15 (Blocked): (rule lists, list ads)" in blocked
        assert "192.0.2.1" in await command(*dig, "+tcp", "www.example")
        many = await command(*dig, "many.example")
        assert "Truncated, retrying in TCP mode" in many and "192.0.2.100" in many
        assert "192.0.2.1" in await command(*dig, "+noedns", "www.example")
        assert "BADVERS" in await command(*dig, "+edns=1", "+noednsneg", "www.example")
        assert "NOTIMP" in await command(*dig, "+opcode=notify", "www.example")
        assert "REFUSED" in await command(*dig, "-c", "CH", "version.bind", "TXT")
        assert "NXDOMAIN" in await command(*dig, "-x", "192.168.0.1")

    run(tmp_path, case)


@pytest.mark.skipif(shutil.which("kdig") is None, reason="needs kdig")
def test_kdig_over_tls(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        kdig = ("kdig", "@127.0.0.1", "-p", str(under_test.ports[1]), "+tls", "+padding=128", "+timeout=3")
        output = await command(*kdig, "www.example")
        assert "192.0.2.1" in output and "TLS session (TLS1.3)" in output
        assert "Received 468 B" in output  # padded (RFC 8467)

    make_certificate(tmp_path)
    tls = f'tls: {{listen: ["127.0.0.1:0"], certificate: {tmp_path}/cert.pem, key: {tmp_path}/key.pem}}'
    run(tmp_path, case, tls)


def test_pipelined_queries_are_answered_as_they_come(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", under_test.ports[0])
        for ident, name in ((1, "silent.example"), (2, "x.ads.example"), (3, "www.example")):
            query = wire.build_query(ident, wire.name_wire(name), wire.A)
            writer.write(len(query).to_bytes(2, "big") + query)
        seen = set()
        for _ in range(2):
            size = int.from_bytes(await reader.readexactly(2), "big")
            seen.add(int.from_bytes((await reader.readexactly(size))[:2], "big"))
        assert seen == {2, 3}
        writer.close()

    run(tmp_path, case)


@pytest.mark.parametrize("at_once", [1, 64])
def test_who_has_said_all_still_gets_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(streams, "PIPELINED_MAX", at_once)
    monkeypatch.setattr(streams, "IDLE_S", 25)

    async def case(under_test: Running) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", under_test.ports[0])
        for ident in range(200):
            name = "x.ads.example" if ident % 3 else f"n{ident}.example"
            query = wire.build_query(ident, wire.name_wire(name), wire.A)
            writer.write(len(query).to_bytes(2, "big") + query)
        writer.write_eof()
        async with asyncio.timeout(20):
            said = await reader.read()
        seen, at = set[int](), 0
        while at < len(said):
            size = int.from_bytes(said[at : at + 2], "big")
            seen.add(int.from_bytes(said[at + 2 : at + 4], "big"))
            at += 2 + size
        assert seen == set(range(200))
        writer.close()

    run(tmp_path, case)


def test_a_connection_without_a_query_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "IDLE_S", 0.1)

    async def case(under_test: Running) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", under_test.ports[0])
        writer.write(b"\x00")
        assert await reader.read() == b""
        writer.close()

    run(tmp_path, case)


def test_rubbish_ends_nothing(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(("127.0.0.1", under_test.ports[0]))
            query = wire.build_query(7, wire.name_wire("x.ads.example"), wire.A)
            answer = query[:2] + b"\x81\x80" + query[4:]
            for rubbish in (b"", b"\x00", b"\xff" * 4000, query[:-1], query + b"x" * 4090, answer):
                udp.send(rubbish)
            udp.send(query)
            while True:
                reply = await loop.sock_recv(udp, 4096)
                if reply[:2] == b"\x00\x07" and reply[3] & 15 == wire.NXDOMAIN:
                    break

    run(tmp_path, case)


def test_a_client_that_asks_too_much_is_not_answered(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(("127.0.0.1", under_test.ports[0]))
            for ident in range(20):
                udp.send(wire.build_query(ident, wire.name_wire("x.ads.example"), wire.A))
            for ident in range(5):
                assert (await loop.sock_recv(udp, 4096))[1] == ident
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await loop.sock_recv(udp, 4096)

    run(tmp_path, case, "limit: {per_second: 1, burst: 5}")


def test_the_query_log(tmp_path: Path) -> None:
    async def case(under_test: Running) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(("127.0.0.1", under_test.ports[0]))
            udp.send(wire.build_query(7, wire.name_wire("x.ads.example"), wire.AAAA))
            await asyncio.get_running_loop().sock_recv(udp, 4096)

    run(tmp_path, case, "log: {enabled: true}")
    (line,) = (tmp_path / "state" / "queries.jsonl").read_text().splitlines()
    said = json.loads(line)
    expected = {"name": "x.ads.example", "type": "AAAA", "verdict": "blocked", "device": "desk", "user": "ann"}
    assert expected.items() <= said.items() and {"rule": "lists", "list": "ads"}.items() <= said.items()
    assert (tmp_path / "state" / "queries.jsonl").stat().st_mode & 0o777 == 0o600
    run(tmp_path, case, "log: {enabled: true, anonymise: true}")
    said = json.loads((tmp_path / "state" / "queries.jsonl").read_text().splitlines()[1])
    assert said["address"] == "127.0.0.0" and "device" not in said and "user" not in said


def test_cached_names_are_answered_under_ten_thousand_random_ones_a_second(tmp_path: Path) -> None:
    """From another address than who asks for the cached one, at an upstream that is silent about them."""

    async def case(under_test: Running) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, flooding(under_test.ports[0]) as flood:
            udp.setblocking(False)
            udp.connect(("127.0.0.1", under_test.ports[0]))
            answered = 0
            while flood.poll() is None or not answered:
                udp.send(wire.build_query(answered & 0xFFFF, wire.name_wire("www.cached.example"), wire.A))
                async with asyncio.timeout(10):
                    while (reply := await loop.sock_recv(udp, 4096))[:2] != (answered & 0xFFFF).to_bytes(2, "big"):
                        pass
                assert reply[3] & 15 == wire.NOERROR and reply[7] == 1
                answered += 1
                await asyncio.sleep(0.002)
            assert flood.communicate()[0].split()[0] == b"10000" and answered > 3

    run(tmp_path, case, "limit: {per_second: 100000, burst: 100000}")


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        settings = parse(f'listen: ["127.0.0.1:{port}"]\nstate: {tmp_path}\n'.encode(), "dns.yaml")
        with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1:{port}: another resolver is there"):
            asyncio.run(app.serve(settings, asyncio.Event()))


def test_a_bad_certificate_is_one_line(tmp_path: Path) -> None:
    tls = 'tls: {listen: ["127.0.0.1:0"], certificate: /nosuch, key: /nosuch}'
    text = f'listen: ["127.0.0.1:0"]\nstate: {tmp_path}\n{tls}'
    with pytest.raises(ConfigError, match=r"^tls: [^\n]+$"):
        asyncio.run(app.serve(parse(text.encode(), "dns.yaml"), asyncio.Event()))


def test_a_flood_of_queries_is_logged_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(querylog, "FLUSH_AT", 50)
    monkeypatch.setattr(querylog, "PENDING_MAX", 900)
    monkeypatch.setattr(querylog, "FLUSH_S", 60)

    async def case(under_test: Running) -> None:
        path = under_test.state / "queries.jsonl"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect(("127.0.0.1", under_test.ports[0]))
            for ident in range(1000):
                udp.send(wire.build_query(ident, wire.name_wire("x.ads.example"), wire.A))
                await asyncio.get_running_loop().sock_recv(udp, 4096)
        assert path.exists()

    run(tmp_path, case, "log: {enabled: true}")
    assert len((tmp_path / "state" / "queries.jsonl").read_text().splitlines()) == 1000
