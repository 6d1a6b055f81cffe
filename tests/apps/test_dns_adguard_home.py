"""Precedence as AdGuard Home has it: the same lists, the same questions, the same answers."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import DNSRecord

from tests.bench.dns.others import adguard_home_program
from tests.bench.peers.peer import Missing
from tests.loopback.dnsfilter.upstream import FakeUpstream, address
from warren.dnsfilter import app
from warren.dnsfilter.settings import parse
from warren.fabric.core import dnswire as wire

FIRST = r"""
||basic.example^
@@||www.basic.example^
||important.example^$important
@@||important.example^
||both.example^$important
@@||both.example^$important
0.0.0.0 hosts.example
@@||hosts.example^
||trusted.example^$important
plain.example
||types.example^$dnstype=AAAA
||deny.example^$denyallow=ok.deny.example
||rewritten.example^$dnsrewrite=1.2.3.4
@@||rewritten.example^
||lifted.example^$dnsrewrite=1.2.3.4
@@||lifted.example^$dnsrewrite
||void.example^
||void.example^$badfilter
/^expr[0-9]+\./
||wild*.example^
||alias.example^$dnsrewrite=NOERROR;CNAME;target.example
10.0.0.5 nas.example
||across.example^
|start.example^
||refused.example^$dnsrewrite=REFUSED;;
||dictated.example^$dnsrewrite=1.2.3.4
||browser.example^$popup
||ads.mixed.example^
127.0.0.1 ads.mixed.example
*.star.example
"""
SECOND = "@@||across.example^\n||second.example^\n@@||second.example^$important\n"
TRUSTED = "||trusted.example^\n||dictated.example^\n"
NAMES = (
    *("basic", "x.basic", "www.basic", "x.www.basic", "important", "both", "hosts", "trusted", "www.trusted", "plain"),
    *("www.plain", "types", "deny", "ok.deny", "x.ok.deny", "no.deny", "rewritten", "www.rewritten", "lifted", "void"),
    *("expr7", "xexpr7", "expr.x", "wild", "wilder", "x.wildest", "alias", "nas", "www.nas", "across", "start"),
    *("www.start", "xstart", "refused", "dictated", "browser", "ads.mixed", "x.ads.mixed", "star", "www.star"),
    *("second", "elsewhere"),
)
DIFFERENT = frozenset({"nas", "star"})
"""What we answer otherwise (docs/dns.md): an address out of a hosts file, whatever blocked names get (theirs does
so in its default mode only), and the name itself under `*.`, as blocky has it."""


@pytest.fixture(scope="module", autouse=True)
def no_fault_in_any_log() -> Iterator[None]:
    """In place of the one for the office."""
    yield


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def asked(port: int, name: str, kind: str) -> tuple[int, tuple[str, ...]]:
    """The code and what the records say."""
    loop, query = asyncio.get_running_loop(), DNSRecord.question(f"{name}.example", kind)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        udp.connect(("127.0.0.1", port))
        await loop.sock_sendall(udp, bytes(query.pack()))
        async with asyncio.timeout(5):
            reply = DNSRecord.parse(await loop.sock_recv(udp, 4096))
    return reply.header.rcode, tuple(sorted(str(record.rdata) for record in reply.rr))


def adguard_home(directory: Path, upstream: int, port: int) -> subprocess.Popen[bytes]:
    try:
        program = adguard_home_program()
    except Missing as missing:
        pytest.skip(str(missing))
    filters = directory / "data" / "filters"
    filters.mkdir(parents=True)
    for number, text in enumerate((FIRST, SECOND, TRUSTED), 1):
        (filters / f"{number}.txt").write_text(text)
    entry = '{{enabled: true, url: "http://127.0.0.1:1/{0}", name: "list {0}", id: {0}}}'
    (directory / "conf.yaml").write_text(
        f"""
http: {{address: "127.0.0.1:{free_port()}"}}
dns:
  {{bind_hosts: [127.0.0.1], port: {port}, upstream_dns: ["127.0.0.1:{upstream}"], ratelimit: 0, cache_size: 0,
   bootstrap_dns: ["127.0.0.1:{upstream}"]}}
querylog: {{enabled: false}}
statistics: {{enabled: false}}
filters: [{entry.format(1)}, {entry.format(2)}]
whitelist_filters: [{entry.format(3)}]
filtering: {{protection_enabled: true, filtering_enabled: true, blocking_mode: nxdomain, filters_update_interval: 0}}
schema_version: 28
"""
    )
    words = [program.path, "--no-check-update", "-w", str(directory), "-c", str(directory / "conf.yaml")]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def public(query: DNSRecord, _: str) -> bytes:
    """Every name has one address, and no IPv6."""
    return address(query) if query.q.qtype == wire.A else bytes(query.reply().pack())


def ours(directory: Path, upstream: int) -> str:
    for name, text in (("first", FIRST), ("second", SECOND), ("trusted", TRUSTED)):
        (directory / f"{name}.txt").write_text(text)
    return f"""
listen: ["127.0.0.1:0"]
upstreams: ["127.0.0.1:{upstream}"]
state: {directory}/state
lists:
  - {{name: first, source: {directory}/first.txt}}
  - {{name: second, source: {directory}/second.txt}}
  - {{name: trusted, source: {directory}/trusted.txt, kind: allow, categories: []}}
"""


def test_the_same_lists_come_to_the_same_answers(tmp_path: Path) -> None:
    said: dict[tuple[str, str], list[tuple[int, tuple[str, ...]]]] = {}

    async def answers(port: int) -> None:
        for name in NAMES:
            for kind in ("A", "AAAA"):
                said.setdefault((name, kind), []).append(await asked(port, name, kind))

    async def whole() -> None:
        async with FakeUpstream(
            lambda q, _: address(q) if q.q.qtype == wire.A else bytes(q.reply().pack())
        ) as upstream:
            stop, ports = asyncio.Event(), asyncio.get_running_loop().create_future()
            settings = parse(ours(tmp_path, upstream.port).encode(), "dns.yaml")
            serving = asyncio.create_task(app.serve(settings, stop, ready=ports.set_result))
            await answers((await ports)[0])
            stop.set()
            await serving
            port = free_port()
            process = adguard_home(tmp_path / "adguard-home", upstream.port, port)
            try:
                await until_it_blocks(port)
                await answers(port)
            finally:
                process.kill()
                process.wait()

    asyncio.run(whole())
    shutil.rmtree(tmp_path / "adguard-home")
    different = {key: both for key, both in said.items() if both[0] != both[1]}
    assert {name for name, _ in different} == DIFFERENT, different


async def until_it_blocks(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if (await asked(port, "basic", "A"))[0] == wire.NXDOMAIN:
                return
        except (OSError, TimeoutError):
            await asyncio.sleep(0.1)
    raise AssertionError("AdGuard Home does not come up")
