"""TCP flows of the laptop's apps: to them, the origin is as it is to a host beside it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import apps
from warren.fabric.daemon.privileges import NUMBERS
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.services import DATABASE_PASSWORD, DATABASE_ROWS, PAGE, Services

MIB = 1 << 20
CURL = ["curl", "--silent", "--show-error", "--max-time", "20"]
PSQL = ["psql", "-tA", "-h", "db.internal", "-U", "clerk", "payroll", "-c", "SELECT name, euros FROM salaries"]
AT_ONCE = 1.0
RETRIES = 2
GIVES_UP = (6.0, 10.0)
"""Seconds until a kernel gives up that sends a SYN three times (1 + 2 + 4, with room for its timers and our load)."""
NOBODY_UNREACHABLE = "ip daddr 10.10.88.0/24 reject with icmp type net-unreachable"


@pytest.fixture(scope="module", autouse=True)
def office_without_a_network(deployment: Deployment) -> None:
    """10.10.88.0/24: the office's router answers for it that the network is unreachable."""
    deployment.lab["office"].run(["nft", "insert", "rule", "inet", "firewall", "forward", *NOBODY_UNREACHABLE.split()])


@pytest.fixture
def payroll(deployment: Deployment) -> Host:
    return deployment.lab["payroll"]


@pytest.fixture
def laptop(deployment: Deployment) -> Host:
    return deployment.laptop


@pytest.fixture(autouse=True)
def nothing_stays(deployment: Deployment) -> Iterator[None]:
    """After each test its flows are over (but for SYNs that nobody answers: their app's silence tells nothing)."""
    yield
    wait_until(lambda: not flows(deployment), "the end of all flows")


def flows(deployment: Deployment) -> list[object]:
    """TCP flows that go on; those of UDP (`…/udp`) end when they have been idle for long enough."""
    living = [
        flow for flow in deployment.status()["flows"] if flow["state"] != "ended" and "/" not in flow["destination"]
    ]
    return [flow for flow in living if not flow["destination"].startswith("10.10.0.66")]


# --- real programs


def test_curl_by_private_address(laptop: Host) -> None:
    assert laptop.run([*CURL, "http://10.10.0.10/"]).stdout == PAGE


def test_curl_by_name(laptop: Host) -> None:
    assert laptop.run([*CURL, "http://payroll.internal/"]).stdout == PAGE


def test_ssh_runs_a_command(laptop: Host, services: Services) -> None:
    services.ssh.give_to(laptop, "payroll.internal")
    assert laptop.run(["ssh", "root@payroll.internal", "hostname"]).stdout == "payroll\n"


def test_psql_reads_rows(laptop: Host) -> None:
    rows = laptop.run(PSQL, env={"PGPASSWORD": DATABASE_PASSWORD}).stdout
    assert rows.splitlines() == [f"{name}|{euros}" for name, euros in DATABASE_ROWS]


# --- connect() ends as it does beside the origin


@pytest.mark.parametrize(
    ("address", "port", "error"),
    [
        ("10.10.0.10", 80, ""),
        ("10.10.0.10", 81, "ECONNREFUSED"),
        ("10.10.66.1", 80, "EHOSTUNREACH"),
        ("10.10.77.1", 80, "EHOSTUNREACH"),
        ("10.10.88.1", 80, "ENETUNREACH"),
    ],
    ids=["connected", "refused", "unreachable", "prohibited", "network-unreachable"],
)
def test_connecting_ends_at_once_as_beside_the_origin(
    deployment: Deployment, address: str, port: int, error: str
) -> None:
    # (Beside comes first: a router's first ICMP error to a host may be swallowed by its rate limit.)
    beside = apps.connect(deployment.connector, address, port)
    away = apps.connect(deployment.laptop, address, port)
    assert (beside.error, away.error) == (error, error)
    assert away.seconds < AT_ONCE


def test_a_silent_origin_times_out_when_the_apps_own_kernel_gives_up(deployment: Deployment, laptop: Host) -> None:
    laptop.run(["sysctl", "-qw", f"net.ipv4.tcp_syn_retries={RETRIES}"])
    try:
        with ThreadPoolExecutor() as pool:
            beside = pool.submit(apps.connect, deployment.connector, "10.10.0.66", 80, retries=RETRIES)
            away = pool.submit(apps.connect, laptop, "10.10.0.66", 80)
            outcomes = beside.result(), away.result()
    finally:
        laptop.run(["sysctl", "-qw", "net.ipv4.tcp_syn_retries=6"])
    assert [outcome.error for outcome in outcomes] == ["ETIMEDOUT", "ETIMEDOUT"]
    assert all(GIVES_UP[0] < outcome.seconds < GIVES_UP[1] for outcome in outcomes), outcomes


def test_an_app_sees_the_addresses_that_it_asked_for(laptop: Host) -> None:
    with apps.connected(laptop, "10.10.0.10", 80) as client:
        assert client.getpeername() == ("10.10.0.10", 80)


# --- ends


def test_an_answer_comes_after_the_apps_end(payroll: Host, laptop: Host) -> None:
    def serve(sock: socket.socket) -> None:
        asked = apps.read_all(sock)
        sock.sendall(b"you said " + asked)

    with apps.origin(payroll, serve) as port, apps.connected(laptop, payroll.address, port) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert apps.read_all(client) == b"you said hello"


def test_the_app_goes_on_after_the_origins_end(payroll: Host, laptop: Host) -> None:
    heard = list[bytes]()

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"greeting")
        sock.shutdown(socket.SHUT_WR)
        heard.append(apps.read_all(sock))

    with apps.origin(payroll, serve) as port, apps.connected(laptop, payroll.address, port) as client:
        assert apps.read_all(client) == b"greeting"
        client.sendall(b"late " * 1000)
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: heard, "what the origin heard")
    assert heard == [b"late " * 1000]


def test_the_origins_reset_overtakes_no_data(payroll: Host, laptop: Host) -> None:
    data = apps.pattern(MIB)

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MIB)
        sock.sendall(data)
        # A reset throws away what the origin's own kernel still holds: what counts is what has left it.
        wait_until(lambda: not unsent(sock), "the end of the origin's sending")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, apps.RESET)

    with apps.origin(payroll, serve) as port, apps.connected(laptop, payroll.address, port) as client:
        received, error = apps.read_until_error(client)
    assert (apps.digest(received), error) == (apps.digest(data), "ECONNRESET")


def unsent(sock: socket.socket) -> int:
    """Bytes that the other kernel has not acknowledged (SIOCOUTQ)."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4), "little")


def test_the_apps_reset_reaches_the_origin(payroll: Host, laptop: Host) -> None:
    ends = list[tuple[bytes, str]]()

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        ends.append(apps.read_until_error(sock))

    with apps.origin(payroll, serve) as port:
        client = apps.connected(laptop, payroll.address, port)
        assert client.recv(5) == b"hello"
        client.sendall(b"before")
        wait_until(lambda: not unsent(client), "the app's kernel has sent it")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, apps.RESET)
        client.close()
        wait_until(lambda: ends, "the end at the origin")
    assert ends == [(b"before", "ECONNRESET")]


# --- bytes


def test_bytes_are_exact_both_ways_at_once(payroll: Host, laptop: Host) -> None:
    up, down = apps.pattern(20 * MIB, 1), apps.pattern(20 * MIB, 2)
    got = list[str]()

    def serve(sock: socket.socket) -> None:
        sending = apps.send_and_end(sock, down)
        got.append(apps.digest(apps.read_all(sock)))
        sending.join()

    with apps.origin(payroll, serve) as port, apps.connected(laptop, payroll.address, port) as client:
        sending = apps.send_and_end(client, up)
        assert apps.digest(apps.read_all(client)) == apps.digest(down)
        sending.join()
    assert got == [apps.digest(up)]


def test_bytes_of_several_flows_keep_apart(payroll: Host, laptop: Host) -> None:
    def exchange(number: int) -> bool:
        data = apps.pattern(2 * MIB, number)
        with apps.connected(laptop, payroll.address, port) as client:
            sending = apps.send_and_end(client, data)
            back = apps.read_all(client)
            sending.join()
        return back == data

    with apps.origin(payroll, apps.echo) as port, ThreadPoolExecutor(6) as pool:
        assert all(pool.map(exchange, range(6)))


def test_sixty_flows_at_once(deployment: Deployment, payroll: Host, laptop: Host) -> None:
    with apps.origin(payroll, apps.echo) as port:
        with ThreadPoolExecutor(60) as pool:
            clients = list(pool.map(lambda _: apps.connected(laptop, payroll.address, port), range(60)))
        assert len(flows(deployment)) == 60
        for number, client in enumerate(clients):
            client.sendall(b"flow %d" % number)
            client.shutdown(socket.SHUT_WR)
        assert [apps.read_all(client) for client in clients] == [b"flow %d" % number for number in range(60)]
        for client in clients:
            client.close()


# --- secrets and powers


def test_no_secret_in_a_command_line_or_a_log(deployment: Deployment) -> None:
    secrets = [
        deployment.connector.read("/root/office.token").strip(),
        deployment.laptop.read("/root/laptop.key").strip(),
    ]
    pieces = {secret[start : start + 24] for secret in secrets for start in range(8, len(secret) - 24, 24)}
    logs = [log.read_text(errors="replace") for log in deployment.lab.logs.glob("*.log")]
    lines = [file.read_text(errors="replace") for file in command_lines()]
    assert logs and lines
    assert not [piece for piece in pieces for text in (*logs, *lines) if piece in text]


def command_lines() -> list[Path]:
    return [file for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]


POWERS = {
    "agent": {"CAP_NET_ADMIN", "CAP_CHOWN", "CAP_FOWNER"},
    "connector": {"CAP_NET_RAW"},
    "edge": {"CAP_NET_BIND_SERVICE"},
}
"""What a daemon's threads keep at most when it is run by hand as root (the edge: that of its store)."""


@pytest.mark.parametrize("role", POWERS)
def test_a_daemon_keeps_no_power_that_it_does_not_need(deployment: Deployment, role: str) -> None:
    allowed = sum(1 << NUMBERS[name] for name in POWERS[role])
    threads = list(Path(f"/proc/{deployment.daemons[role].pid}/task").glob("*/status"))
    held = [line.split() for file in threads for line in file.read_text().splitlines() if line.startswith("Cap")]
    assert len(held) == 5 * len(threads) > 0
    assert not [(name, value) for name, value in held if int(value, 16) & ~allowed]
