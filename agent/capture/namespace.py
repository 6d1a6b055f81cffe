"""The private network namespace, in which our own kernel ends the apps' TCP connections.

    host TUN ─▶ flow table ─▶ inner TUN ─▶ `ip rule iif`: everything is local ─▶ nft tproxy ─▶ transparent listener

So `getsockname()` of an accepted socket is the original destination, and what that kernel sends comes out of the inner
TUN. The namespace is anonymous: its sockets and its TUN device hold it, and it vanishes with the process.

Needs CAP_SYS_ADMIN and CAP_NET_ADMIN while it is being made, and the `nft` command with the kernel's nft_tproxy.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import structlog

from warren.agent.capture.tun import Tun
from warren.fabric.core.errors import ConfigError

LISTEN_BACKLOG = 4_096
"""Connections that wait for `accept`: as many as SYNs may be held, for they may be released all at once."""

_CLONE_NEWNET = 0x40000000
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
_INNER_NAME = "inner0"
_LISTEN_PORT = 7_000  # in a namespace where nothing else listens; any would do
_LOCAL_TABLE = 100
_SCOPE_HOST = 254
_NFT_TIMEOUT_S = 10.0

_NFT_RULES = f"""
table inet warren {{
  chain capture {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{_INNER_NAME}" meta nfproto ipv4 meta l4proto tcp tproxy ip to :{_LISTEN_PORT} accept;
    iifname "{_INNER_NAME}" meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{_LISTEN_PORT} accept;
  }}
}}
"""

_SYSCTLS = {
    # needed: what arrives has sources that routes lead nowhere
    "net/ipv4/conf/all/rp_filter": "0",
    f"net/ipv4/conf/{_INNER_NAME}/rp_filter": "0",
}
_TUNING = {
    # wanted: a burst of released SYNs, and windows wide enough for 10 Gbit/s at once, with 4 MiB as the most
    "net/core/somaxconn": str(LISTEN_BACKLOG),
    "net/ipv4/tcp_max_syn_backlog": str(LISTEN_BACKLOG),
    "net/ipv4/tcp_rmem": "4096 1048576 4194304",
    "net/ipv4/tcp_wmem": "4096 262144 4194304",
    "net/ipv4/tcp_slow_start_after_idle": "0",
}

_log = structlog.get_logger(__name__)


class PrivateNamespace:
    """The inner TUN and the listeners (IPv4, and IPv6 where the kernel has it) of a finished private namespace."""

    def __init__(self, tun: Tun, listeners: tuple[socket.socket, ...]) -> None:
        self.tun = tun
        self.listeners = listeners

    @classmethod
    def create(cls, mtu: int) -> PrivateNamespace:
        """Make one, in a thread of its own, so that the caller's thread stays where it is. Blocks for about 0.1 s.

        `ConfigError` if a permission, `nft` or something in the kernel is missing.
        """
        made: list[PrivateNamespace] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                made.append(_create(mtu))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="private-namespace")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]

    def close(self) -> None:
        """End it, and with it every connection in it that nobody holds."""
        for listener in self.listeners:
            listener.close()
        self.tun.close()


def _create(mtu: int) -> PrivateNamespace:
    if shutil.which("nft") is None:
        raise ConfigError("the command nft is missing: apt-get install nftables")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        hint = "run as root, or with CAP_SYS_ADMIN" if number == errno.EPERM else os.strerror(number)
        raise ConfigError(f"can't make a private network namespace: {hint}")
    tun = Tun.open(_INNER_NAME, mtu)
    try:
        _set_sysctls()
        six = _enable_ipv6()
        _route_everything_here(six)
        _redirect_to_listener()
        listeners = (_listen(socket.AF_INET), *([_listen(socket.AF_INET6)] if six else []))
    except BaseException:
        tun.close()
        raise
    return PrivateNamespace(tun, listeners)


def _set_sysctls() -> None:
    # /proc/sys/net shows the namespace of the calling thread
    for path, value in _SYSCTLS.items():
        if not _set_sysctl(path, value):
            raise ConfigError(
                f"can't set {path.replace('/', '.')} = {value} in the private namespace: make /proc/sys writable"
            )
    for path, value in _TUNING.items():
        if not _set_sysctl(path, value):
            _log.debug("capture.sysctl_left_alone", sysctl=path)


def _set_sysctl(path: str, value: str) -> bool:
    file = Path("/proc/sys") / path
    try:
        if file.read_text().split() != value.split():
            file.write_text(value)
    except OSError:
        return False
    return True


def _enable_ipv6() -> bool:
    """In here, whatever the host's default is; False where the kernel has none."""
    return all(_set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0") for name in ("all", "lo", _INNER_NAME))


def _route_everything_here(six: bool) -> None:
    from pyroute2 import IPRoute, NetlinkError  # imported late: 0.2 s

    try:
        with IPRoute() as netlink:
            _fill_routes(netlink, six)
    except NetlinkError as error:
        raise ConfigError(f"can't set up routes in the private namespace: {error}") from error


def _fill_routes(netlink: Any, six: bool) -> None:
    inner = netlink.link_lookup(ifname=_INNER_NAME)[0]
    loopback = netlink.link_lookup(ifname="lo")[0]
    netlink.link("set", index=loopback, state="up")
    netlink.route("add", dst="0.0.0.0/0", oif=inner, scope=253)
    netlink.route("add", dst="0.0.0.0/0", type="local", oif=loopback, table=_LOCAL_TABLE, scope=_SCOPE_HOST)
    netlink.rule("add", iifname=_INNER_NAME, table=_LOCAL_TABLE, family=socket.AF_INET)
    if six:
        netlink.route("add", dst="::/0", oif=inner, family=socket.AF_INET6)
        local = {"type": "local", "oif": loopback, "table": _LOCAL_TABLE, "family": socket.AF_INET6}
        netlink.route("add", dst="::/0", **local)
        netlink.rule("add", iifname=_INNER_NAME, table=_LOCAL_TABLE, family=socket.AF_INET6)


def _redirect_to_listener() -> None:
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=_NFT_RULES, text=True, capture_output=True, timeout=_NFT_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"nft could not be run: {error}") from error
    if done.returncode != 0:
        first = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise ConfigError(f"nft refused the transparent-proxy rule (is the kernel's nft_tproxy there?): {first}")


def _listen(family: socket.AddressFamily) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
            listener.bind(("::", _LISTEN_PORT))
        else:
            listener.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
            listener.bind(("0.0.0.0", _LISTEN_PORT))  # noqa: S104  (in a namespace of our own)
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"can't listen in the private namespace: {error.strerror}") from error
    return listener
