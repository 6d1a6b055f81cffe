"""Real applications, through Warren: what they transfer is whole, and they end as beside the server."""

from __future__ import annotations

import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.certificates import certificates
from tests.lab import apps, http3
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.services import (
    DATABASE,
    DATABASE_PASSWORD,
    DATABASE_USER,
    ECHO_PORT,
    HTTP_PORT,
    SSH_PORT,
    Services,
)

MIB = 1 << 20
LARGE = 100 * MIB
LONG = 120.0
"""Seconds for the largest of these, on a busy machine."""
HTTP2_PORT = 8080
HTTP2_FILES, HTTP2_SIZE = 40, MIB // 2
FLOWS = 500
PASSWORD = {"PGPASSWORD": DATABASE_PASSWORD}
LOGIN = ["-h", "db.internal", "-U", DATABASE_USER]
MANY_ROWS = "COPY (SELECT i, md5(i::text) FROM generate_series(1, 500000) i) TO STDOUT"

# Tries ports 1 to 1000 of an address, 64 at once; prints those that are open, and what the others came to.
SCAN = """
import asyncio, collections, sys
others, gate = collections.Counter(), asyncio.Semaphore(64)
async def look(port):
    async with gate:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(sys.argv[1], port), 20)
        except (OSError, TimeoutError) as error:
            others[type(error).__name__] += 1
        else:
            print(port)
            writer.close()
async def main():
    await asyncio.gather(*map(look, range(1, 1001)))
    print(*(f"{name} {count}" for name, count in others.items()), file=sys.stderr)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def payroll(deployment: Deployment) -> Host:
    return deployment.lab["payroll"]


@pytest.fixture(scope="module")
def laptop(deployment: Deployment, services: Services) -> Host:
    services.ssh.give_to(deployment.laptop, "payroll.internal")
    return deployment.laptop


@pytest.fixture(autouse=True)
def no_flow_stays(deployment: Deployment) -> Iterator[None]:
    yield
    wait_until(lambda: not living(deployment), "the end of all flows")


def living(deployment: Deployment) -> list[object]:
    """TCP flows that go on; those of UDP (`…/udp`) end when they have been idle for long enough."""
    return [
        flow for flow in deployment.status()["flows"] if flow["state"] != "ended" and "/" not in flow["destination"]
    ]


def put(host: Host, path: str, size: int, seed: int) -> str:
    """A file of that many bytes; its digest."""
    data = apps.pattern(size, seed)
    host.write(path, data)
    return apps.digest(data)


def digest_of(host: Host, path: str) -> str:
    with host.path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- files


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_scp_of_a_large_file(laptop: Host, payroll: Host, up: bool) -> None:
    source, target = (laptop, payroll) if up else (payroll, laptop)
    digest = put(source, "/tmp/sent", LARGE, 3)
    words = ["/tmp/sent", "root@payroll.internal:/tmp/got"] if up else ["root@payroll.internal:/tmp/sent", "/tmp/got"]
    try:
        laptop.run(["scp", "-q", *words], timeout=LONG)
        assert digest_of(target, "/tmp/got") == digest
    finally:
        for host, path in ((source, "/tmp/sent"), (target, "/tmp/got")):
            host.path(path).unlink(missing_ok=True)


def test_rsync_of_a_tree_there_and_back(laptop: Host, payroll: Host) -> None:
    for number in range(200):
        laptop.write(f"/tmp/tree/{number % 7}/file-{number}", apps.pattern(number * 997, number))
    rsync = ["rsync", "-a", "--checksum", "-e", "ssh"]
    laptop.run([*rsync, "/tmp/tree/", "root@payroll.internal:/tmp/tree/"], timeout=60)
    laptop.run([*rsync, "root@payroll.internal:/tmp/tree/", "/tmp/back/"], timeout=60)
    assert laptop.run(["diff", "-r", "/tmp/tree", "/tmp/back"]).stdout == ""
    payroll.write("/tmp/tree/0/file-0", b"changed")
    changed = laptop.run([*rsync, "-i", "root@payroll.internal:/tmp/tree/", "/tmp/back/"]).stdout
    assert [line.split()[1] for line in changed.splitlines() if line.startswith(">f")] == ["0/file-0"]


# --- a database


def test_psql_reads_a_large_result(deployment: Deployment, laptop: Host) -> None:
    psql = ["psql", "-qtA", *LOGIN, DATABASE, "-c", MANY_ROWS]
    away = laptop.run(psql, env=PASSWORD, timeout=60).stdout
    assert len(away) > 15 * MIB and away == deployment.connector.run(psql, env=PASSWORD, timeout=60).stdout


def test_pgbench_runs_its_transactions(laptop: Host) -> None:
    laptop.run(["pgbench", "-q", "-i", *LOGIN, DATABASE], env=PASSWORD, timeout=60)
    said = laptop.run(["pgbench", "-c", "8", "-j", "2", "-t", "50", *LOGIN, DATABASE], env=PASSWORD, timeout=60)
    assert "number of transactions actually processed: 400/400" in said.stdout
    assert "number of failed transactions: 0 " in said.stdout


# --- many streams in one connection


@pytest.fixture(scope="module")
def http2(payroll: Host) -> Process:
    for number in range(HTTP2_FILES):
        payroll.write(f"/var/lib/http2/{number}", apps.pattern(HTTP2_SIZE, number))
    payroll.write("/var/lib/http2/small", b"x" * 200)
    server = payroll.start(["nghttpd", "--no-tls", "-a", payroll.address, "-d", "/var/lib/http2", str(HTTP2_PORT)])
    payroll.wait_for_listener(HTTP2_PORT, server)
    return server


def test_a_large_http2_download_is_whole(laptop: Host, payroll: Host, http2: Process) -> None:
    digest = put(payroll, "/var/lib/http2/large", 20 * MIB, 7)
    curl = ["curl", "-sS", "--http2-prior-knowledge", "-o", "/tmp/large", "-w", "%{http_version}"]
    assert laptop.run([*curl, f"http://payroll.internal:{HTTP2_PORT}/large"], timeout=60).stdout == "2"
    assert digest_of(laptop, "/tmp/large") == digest


def test_http2_streams_side_by_side_in_one_connection(laptop: Host, http2: Process) -> None:
    urls = "".join(f"http://payroll.internal:{HTTP2_PORT}/{number}\n" for number in range(HTTP2_FILES))
    laptop.write("/tmp/urls", urls)
    streams = str(HTTP2_FILES)
    said = laptop.run(["h2load", "-n", streams, "-c", "1", "-m", streams, "-i", "/tmp/urls"], timeout=60).stdout
    assert f"{HTTP2_FILES} succeeded, 0 failed, 0 errored, 0 timeout" in said
    assert f"({HTTP2_FILES * HTTP2_SIZE}) data" in said


def test_http2_requests_by_the_thousand(laptop: Host, http2: Process) -> None:
    url = f"http://payroll.internal:{HTTP2_PORT}/small"
    said = laptop.run(["h2load", "-n", "4000", "-c", "4", "-m", "50", url], timeout=60).stdout
    assert "4000 succeeded, 0 failed, 0 errored, 0 timeout" in said


def test_http3_brings_its_own_quic(laptop: Host, payroll: Host) -> None:
    """QUIC inside QUIC: the app's packets are datagrams of ours."""
    shown = certificates(http3.NAME)
    payroll.write("/etc/http3-chain.pem", shown.chain)
    payroll.write("/etc/http3-key.pem", shown.key, 0o600)
    laptop.write("/tmp/http3-root.pem", shown.root)
    program, sizes = [sys.executable, str(Path(http3.__file__))], [100, 3 * MIB, 50_000, 1]
    serve = [*program, "serve", payroll.address, "8443", "/etc/http3-chain.pem", "/etc/http3-key.pem"]
    with payroll.start(serve) as server:
        server.wait_for_output("serving")
        fetch = [*program, "fetch", "payroll.internal", "8443", "/tmp/http3-root.pem", *map(str, sizes)]
        digests = laptop.run(fetch, timeout=60).stdout.split()
    assert digests == [apps.digest(http3.content(size)) for size in sizes]


# --- ends


def test_nc_ends_its_side_and_still_reads_the_other(laptop: Host, payroll: Host) -> None:
    """`nc -N` shuts its sending side down at the end of its input. Each side sends 5 MiB and reads to the end."""
    request, reply = put(laptop, "/tmp/request", 5 * MIB, 5), put(payroll, "/tmp/reply", 5 * MIB, 6)
    with payroll.start(["sh", "-c", "nc -N -l 9000 </tmp/reply >/tmp/requested"]) as server:
        payroll.wait_for_listener(9000, server)
        laptop.run(["sh", "-c", "nc -N payroll.internal 9000 </tmp/request >/tmp/replied"])
        assert server.wait() == 0
    assert digest_of(payroll, "/tmp/requested") == request
    assert digest_of(laptop, "/tmp/replied") == reply


def test_nc_is_answered_after_it_has_ended_its_side(laptop: Host, payroll: Host) -> None:
    with apps.origin(payroll, lambda sock: sock.sendall(b"%d bytes" % len(apps.read_all(sock)))) as port:
        said = laptop.run(["sh", "-c", f"head -c 3000000 /dev/zero | nc -N payroll.internal {port}"])
    assert said.stdout == "3000000 bytes"


# --- many


def test_five_hundred_flows_at_once(deployment: Deployment, laptop: Host, payroll: Host) -> None:
    with ThreadPoolExecutor(50) as pool:
        clients = list(pool.map(lambda _: apps.connected(laptop, payroll.address, ECHO_PORT), range(FLOWS)))
    try:
        assert len(living(deployment)) == FLOWS
        for number, client in enumerate(clients):
            client.sendall(b"flow %d" % number)
            client.shutdown(socket.SHUT_WR)
        assert [apps.read_all(client) for client in clients] == [b"flow %d" % number for number in range(FLOWS)]
    finally:
        for client in clients:
            client.close()


def test_a_scan_of_a_thousand_ports_shows_the_open_ones(deployment: Deployment, laptop: Host, payroll: Host) -> None:
    began = time.monotonic()
    said = laptop.python(SCAN, payroll.address, timeout=LONG)
    took = time.monotonic() - began
    assert sorted(map(int, said.stdout.split())) == sorted([ECHO_PORT, SSH_PORT, HTTP_PORT])
    assert said.stderr.split() == ["ConnectionRefusedError", "997"]
    assert took < 60
