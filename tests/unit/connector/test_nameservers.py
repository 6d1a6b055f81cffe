"""The host's nameservers, asked over real sockets: UDP, TCP where the answer was cut, the next one where one fails."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dnslib
import pytest
from dnslib.server import BaseResolver, DNSHandler, DNSServer

from warren.connector import nameservers, resolve
from warren.connector.nameservers import Nameservers, servers
from warren.fabric.core import dnsrecords, dnswire
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

Say = Callable[[dnslib.DNSRecord], dnslib.DNSRecord | None]
FIRST, SECOND = "127.0.0.31", "127.0.0.32"


class Server(BaseResolver):  # type: ignore[misc]  # dnslib has no types
    """Says what it is told to; keeps what it was asked."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.asked: list[tuple[str, str]] = []

    def resolve(self, request: dnslib.DNSRecord, handler: Any) -> dnslib.DNSRecord:
        self.asked.append((handler.protocol, str(request.q.qname)))
        return self.say(request)


class Site:
    """Name servers on addresses of the loopback, all on one port."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running: list[DNSServer] = []
        with socket.socket() as free:
            free.bind((FIRST, 0))
            self.port = free.getsockname()[1]

    def serve(self, address: str, say: Say) -> Server:
        server = Server(say)
        for tcp in (False, True):
            running = DNSServer(server, address=address, port=self.port, tcp=tcp, logger=Quiet(), handler=Cutting)
            serve = threading.Thread(target=running.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            serve.start()
            self.running.append(running)
        return server

    def nameservers(self, *addresses: str) -> Nameservers:
        conf = self.path / "resolv.conf"
        conf.write_text("".join(f"nameserver {address}\n" for address in addresses))
        return Nameservers(conf, self.port)


class Cutting(DNSHandler):  # type: ignore[misc]
    """Sets TC on what is longer than an answer over UDP may be."""

    udplen = dnswire.UDP_MAX


class Quiet:
    """A logger that says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *words: None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for running in site.running:
        running.server.shutdown()
        running.server.server_close()


def question(name: str, kind: int) -> dnswire.Question:
    read = dnswire.read_question(dnswire.build_query(9, dnswire.name_wire(name), kind))
    assert isinstance(read, dnswire.Question)
    return read


def ask(asked: Nameservers, name: str, kind: int) -> dnsrecords.Sections:
    read = dnsrecords.read_sections(asyncio.run(asked.ask(question(name, kind))))
    assert read is not None
    return read


def text(request: dnslib.DNSRecord, size: int = 5) -> dnslib.DNSRecord:
    reply = request.reply()
    reply.add_answer(dnslib.RR(request.q.qname, request.q.qtype, ttl=60, rdata=dnslib.TXT(["x" * 200] * size)))
    return reply


def failing(rcode: int) -> Say:
    def say(request: dnslib.DNSRecord) -> dnslib.DNSRecord:
        reply = request.reply()
        reply.header.rcode = rcode
        return reply

    return say


def test_any_type_is_asked(site: Site) -> None:
    site.serve(FIRST, text)
    (record,) = ask(site.nameservers(FIRST), "payroll.internal", dnswire.TXT).answers
    assert (record.type, record.ttl, len(record.rdata)) == (dnswire.TXT, 60, 5 * 201)


def test_an_answer_that_was_cut_is_asked_for_again_over_tcp(site: Site) -> None:
    server = site.serve(FIRST, lambda request: text(request, 40))
    (record,) = ask(site.nameservers(FIRST), "big.internal", dnswire.TXT).answers
    assert len(record.rdata) == 40 * 201
    assert [protocol for protocol, _ in server.asked] == ["udp", "tcp"]


@pytest.mark.parametrize("rcode", [2, 5])
def test_the_next_one_is_asked_where_one_fails(site: Site, rcode: int) -> None:
    first, _ = site.serve(FIRST, failing(rcode)), site.serve(SECOND, text)
    assert ask(site.nameservers(FIRST, SECOND), "payroll.internal", dnswire.TXT).answers
    assert len(first.asked) == 1


def test_one_that_is_not_there_is_passed_over(site: Site) -> None:
    site.serve(SECOND, text)
    assert ask(site.nameservers(FIRST, SECOND), "payroll.internal", dnswire.TXT).answers


def test_nxdomain_is_an_answer(site: Site) -> None:
    _, second = site.serve(FIRST, failing(3)), site.serve(SECOND, text)
    assert ask(site.nameservers(FIRST, SECOND), "ghost.internal", dnswire.TXT).rcode == dnswire.NXDOMAIN
    assert second.asked == []


def test_a_failure_of_all_is_told_as_it_is(site: Site) -> None:
    site.serve(FIRST, failing(5))
    assert ask(site.nameservers(FIRST), "payroll.internal", dnswire.TXT).rcode == dnswire.REFUSED


def test_silence_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "WAIT", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((FIRST, site.port))
        with pytest.raises(DeniedError) as denied:
            ask(site.nameservers(FIRST), "payroll.internal", dnswire.TXT)
        assert denied.value.reason is Reason.RESOLVER_FAILED
        assert len([silent.recv(512) for _ in range(nameservers.ROUNDS)]) == nameservers.ROUNDS


def test_answers_to_something_else_are_not_taken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "WAIT", 0.3)

    def other(request: dnslib.DNSRecord) -> dnslib.DNSRecord:
        return text(dnslib.DNSRecord(request.header, q=dnslib.DNSQuestion("other.internal", dnslib.QTYPE.TXT)))

    site.serve(FIRST, other)
    with pytest.raises(DeniedError):
        ask(site.nameservers(FIRST), "payroll.internal", dnswire.TXT)


def test_too_many_at_once_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "ASKING", 0)
    with pytest.raises(DeniedError) as denied:
        ask(site.nameservers(FIRST), "payroll.internal", dnswire.TXT)
    assert denied.value.reason is Reason.LIMIT


def test_resolv_conf_is_read_as_the_c_library_does(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    assert servers(conf) == ("127.0.0.1",)
    conf.write_text("# nameserver 1.1.1.1\nnameserver 10.0.0.1\nsearch a b\nnameserver fd00::1 # x\nnameserver bad\n")
    assert servers(conf) == ("10.0.0.1", "fd00::1")
    conf.write_text("".join(f"nameserver 10.0.0.{n}\n" for n in range(1, 6)))
    assert servers(conf) == ("10.0.0.1", "10.0.0.2", "10.0.0.3")


# ---- addresses: getaddrinfo, and what it does not tell ----


async def nobody(host: str) -> list[str]:
    raise DeniedError(Reason.NO_SUCH_NAME, host)


def answered(asked: Nameservers, name: str, kind: int) -> dnsrecords.Sections:
    read = dnsrecords.read_sections(asyncio.run(resolve.answer(question(name, kind), asked)))
    assert read is not None
    return read


def test_the_hosts_file_counts(site: Site) -> None:
    server = site.serve(FIRST, failing(3))
    (record,) = answered(site.nameservers(FIRST), "localhost", dnswire.A).answers
    assert record.rdata == b"\x7f\x00\x00\x01" and server.asked == []


@pytest.mark.parametrize("rcode", [0, 3])
def test_a_name_without_addresses_exists_or_not_as_its_nameserver_says(
    site: Site, monkeypatch: pytest.MonkeyPatch, rcode: int
) -> None:
    monkeypatch.setattr(resolve, "addresses", nobody)
    site.serve(FIRST, failing(rcode))
    said = answered(site.nameservers(FIRST), "ghost.internal", dnswire.A)
    assert (said.rcode, said.answers) == (rcode, ())


def test_without_a_nameserver_an_unknown_name_is_unknown(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "addresses", nobody)
    with pytest.raises(DeniedError) as denied:
        answered(site.nameservers(FIRST), "ghost.internal", dnswire.A)
    assert denied.value.reason is Reason.NO_SUCH_NAME
