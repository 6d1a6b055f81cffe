"""Apps on a captured host, as they see it: real sockets, a real TUN, the private namespace; every origin is a fake."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from tests.lab.agent.throwaway import in_throwaway_namespace, wait_for
from warren.agent.capture.capture import Capture, CaptureConfig
from warren.agent.capture.headers import FlowKey
from warren.fabric.core.errors import ConfigError
from warren.fabric.core.reasons import Reason

RESOLVER = "100.80.0.2"
ORIGIN = "10.10.0.5"
CONFIG = CaptureConfig(name="warren-test", local=frozenset({(socket.inet_aton(RESOLVER), 53)}))
PORTS = {
    81: Reason.REFUSED,
    82: Reason.HOST_UNREACHABLE,
    83: Reason.TIMED_OUT,
    84: Reason.POLICY,
    85: Reason.NET_UNREACHABLE,
}
HELD = 86


class Origins:
    """A handler: refuses by port, holds one port, echoes on all others, and on UDP."""

    def __init__(self) -> None:
        self.capture: Capture
        self.syns: list[FlowKey] = []
        self.gone: list[FlowKey] = []
        self.opened: list[FlowKey] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def syn(self, key: FlowKey) -> None:
        self.syns.append(key)
        if key.destination_port in PORTS:
            self.capture.refuse(key, PORTS[key.destination_port])
        elif key.destination_port != HELD:
            self.capture.release(key)

    def cancelled(self, key: FlowKey) -> None:
        self.gone.append(key)

    def accepted(self, key: FlowKey, sock: socket.socket) -> None:
        assert sock.getsockname() == (socket.inet_ntoa(key.destination), key.destination_port)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        self.opened.append(key)
        task = asyncio.get_running_loop().create_task(self._echo(key, sock))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _echo(self, key: FlowKey, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(sock, 1 << 18):
                await loop.sock_sendall(sock, data)
        except ConnectionError:
            pass
        sock.close()
        self.capture.forget(key)

    def datagram(self, key: FlowKey, payload: memoryview) -> None:
        self.capture.send_datagram(key, bytes(payload) * 2)


class Running:
    """The capture in an event loop in a thread, as the agent would run it, so that the test is the app."""

    def __init__(self) -> None:
        self.origins = Origins()
        self.capture = self.origins.capture = Capture.open(CONFIG)
        add_routes()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()))

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.capture.start(self.origins)
        self._ready.set()
        await self._stop.wait()
        for task in self.origins.tasks:
            task.cancel()
        self.capture.close()

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


def add_routes() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=CONFIG.name)[0]
        netlink.addr("add", index=index, address="100.80.0.1", prefixlen=32)
        for network in ("10.0.0.0/8", f"{RESOLVER}/32"):
            netlink.route("add", dst=network, oif=index, scope=253, prefsrc="100.80.0.1")


def connect(port: int, address: str = ORIGIN, timeout: float = 5.0) -> tuple[socket.socket, int]:
    sock = socket.socket()
    sock.settimeout(timeout)
    try:
        sock.connect((address, port))
    except TimeoutError:
        return sock, errno.ETIMEDOUT
    except OSError as error:
        return sock, error.errno or 0
    return sock, 0


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


@in_throwaway_namespace
def test_connect_ends_as_it_would_beside_the_origin() -> None:
    with Running():
        expected = {81: errno.ECONNREFUSED, 82: errno.EHOSTUNREACH, 84: errno.EHOSTUNREACH, 85: errno.ENETUNREACH, 7: 0}
        for port, number in expected.items():
            began = time.monotonic()
            sock, got = connect(port)
            sock.close()
            assert errno.errorcode.get(got, got) == errno.errorcode.get(number, number), port
            assert time.monotonic() - began < 0.9, port  # no retransmit was needed


@in_throwaway_namespace
def test_a_silent_origin_times_out_by_the_apps_own_kernel() -> None:
    with Running() as running:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        with pytest.raises(OSError) as raised:
            sock.connect((ORIGIN, 83))
        assert raised.value.errno == errno.ETIMEDOUT
        assert len(running.origins.syns) == 1  # the retransmit asked nobody again
        assert running.capture.counters["syn"] >= 2
        sock.close()


@in_throwaway_namespace
def test_echo_half_close_and_the_flow_leaves_the_table() -> None:
    with Running() as running:
        sock, number = connect(7)
        assert number == 0
        data = bytes(range(256)) * 40_000  # 10 MB: more than all socket buffers between the two ends
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        assert read_all(sock) == data
        sender.join()
        sock.close()
        assert running.capture.flows == 1
        wait_for(lambda: running.capture.flows == 0, 8.0)  # derived from FINs, after the linger
        assert not running.origins.gone
        assert not [word for word in running.capture.counters if word.endswith("_full")]


@in_throwaway_namespace
def test_a_reset_by_the_app_reaches_the_handlers_socket() -> None:
    with Running() as running:
        sock, _ = connect(7)
        wait_for(lambda: running.origins.tasks)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        wait_for(lambda: not running.origins.tasks)


@in_throwaway_namespace
def test_an_app_that_closed_before_its_release_cancels() -> None:
    with Running() as running:
        sock = socket.socket()
        sock.setblocking(False)
        assert sock.connect_ex((ORIGIN, HELD)) == errno.EINPROGRESS
        key = wait_for(lambda: running.origins.syns)[0]
        sock.close()  # sends nothing
        assert not running.origins.gone
        running.call(running.capture.release, key)
        wait_for(lambda: running.origins.gone == [key])  # the app's kernel answered the SYN-ACK with a RST
        assert not running.origins.opened
        assert running.capture.flows == 0


@in_throwaway_namespace
def test_a_held_syn_is_asked_for_once_and_released_later() -> None:
    with Running() as running:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((ORIGIN, HELD))
        wait_for(lambda: running.capture.counters["syn"] >= 2)  # a retransmit has come
        assert len(running.origins.syns) == 1
        running.call(running.capture.release, running.origins.syns[0])
        sock.settimeout(5)
        wait_for(lambda: running.origins.opened)
        sock.sendall(b"late")
        assert sock.recv(10) == b"late"
        sock.close()


@in_throwaway_namespace
def test_the_local_service_answers_over_udp_and_tcp_and_has_no_other_port() -> None:
    with Running() as running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(5)
            udp.connect((RESOLVER, 53))
            for size in (1, 600, 1400):  # the last answer is longer than the MTU
                udp.send(b"q" * size)
                assert udp.recv(5000) == b"q" * 2 * size
        sock, number = connect(53, RESOLVER)
        assert number == 0
        assert not running.origins.syns
        sock.sendall(b"query")
        assert sock.recv(10) == b"query"
        sock.close()
        assert connect(443, RESOLVER)[1] == errno.ECONNREFUSED
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(5)
            udp.connect((RESOLVER, 5353))
            udp.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                udp.recv(10)


@in_throwaway_namespace
def test_what_is_not_carried_is_counted() -> None:
    with Running() as running, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"x", (ORIGIN, 123))
        udp.sendto(b"x" * 4000, (ORIGIN, 123))
        counters = running.capture.counters
        wait_for(lambda: counters["dropped_udp"] == 1 and counters["dropped_fragment"] == 3)


@in_throwaway_namespace
def test_many_connections_at_once() -> None:
    with Running() as running:
        socks = [socket.socket() for _ in range(300)]
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex((ORIGIN, 7))
        for number, sock in enumerate(socks):
            sock.settimeout(10)
            wait_for(lambda sock=sock: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0)
            sock.sendall(b"%d" % number)
        for number, sock in enumerate(socks):
            assert sock.recv(10) == b"%d" % number
            sock.close()
        assert len(running.origins.opened) == 300


@in_throwaway_namespace
def test_a_name_in_use_is_one_line() -> None:
    capture = Capture.open(CONFIG)
    with pytest.raises(ConfigError, match="in use"):
        Capture.open(CONFIG)
    capture.close()
    Capture.open(CONFIG).close()


@in_throwaway_namespace
def test_the_devices_are_quiet_and_vanish() -> None:
    from pyroute2 import IPRoute

    capture = Capture.open(CONFIG)
    with IPRoute() as netlink:
        assert [link.get_attr("IFLA_IFNAME") for link in netlink.get_links()][-1] == CONFIG.name
        index = netlink.link_lookup(ifname=CONFIG.name)[0]
        assert not list(netlink.get_addr(index=index))  # no link-local address either
        capture.close()
        assert not netlink.link_lookup(ifname=CONFIG.name)


@in_throwaway_namespace
def test_what_is_missing_is_one_line_and_leaves_nothing() -> None:
    path = os.environ["PATH"]
    os.environ["PATH"] = "/nowhere"
    with pytest.raises(ConfigError, match="apt-get install nftables"):
        Capture.open(CONFIG)
    os.environ["PATH"] = path
    with pytest.raises(ConfigError, match="too long"):
        Capture.open(CaptureConfig(name="sixteen-letters-"))
    assert not interface_exists(CONFIG.name)
    os.setuid(65534)
    with pytest.raises(ConfigError, match="run as root"):
        Capture.open(CONFIG)


def interface_exists(name: str) -> bool:
    """Whether this namespace has such an interface."""
    return any(found == name for _, found in socket.if_nameindex())


@in_throwaway_namespace
def test_a_device_that_is_removed_is_noticed() -> None:
    from pyroute2 import IPRoute

    with Running() as running:
        with IPRoute() as netlink:
            netlink.link("del", index=netlink.link_lookup(ifname=CONFIG.name)[0])
        wait_for(running.capture.lost.is_set)


@in_throwaway_namespace
def test_running_out_of_descriptors_delays_and_loses_nothing() -> None:
    with Running() as running:
        socks = [socket.socket() for _ in range(40)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(sock.fileno() for sock in socks) + 20, 4096))
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex((ORIGIN, 7))
        wait_for(lambda: running.capture.counters["accept_failed"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        wait_for(lambda: len(running.origins.opened) == 40)
        for sock in socks:
            sock.close()
