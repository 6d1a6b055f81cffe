"""What happens to hosts and their programs, on purpose: another address, a NAT that forgets, a frozen process."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path

from warren.lab.entering import enter_network, in_network_of
from warren.lab.host import Host
from warren.lab.state import LabError, is_stopped
from warren.lab.topology import HostSpec, Interface
from warren.lab.waiting import wait_until
from warren.lab.wiring import batch, run_with

NETLINK_NETFILTER = 12
DELETE_CONNECTIONS = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE: with no filter, all of them
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 1, 4, 2
SOON = 5.0


# ---- addresses


def readdress(host: Host, address: str, card: str | None = None) -> str:
    """The card (the first, unless named) has `address` (with its prefix) instead of the one it had, which is returned.

    The address is of the same network, as after a new lease: routes by way of that network's hosts stay. Raises
    LabError for an address of another network.
    """
    interface = _card(host.spec, card)
    before, after = address_of(host, interface.name), _read(address)
    if after.network != before.network:
        raise LabError(f"{after} is not in {before.network}, where {host.name} is")
    if after == before:
        return str(before)
    name = interface.name
    batch(
        host.pid,
        [
            f"addr add {after} dev {name} noprefixroute",
            f"route replace {after.network} dev {name} scope link src {after.ip}",
            f"addr del {before} dev {name}",
        ],
    )
    return str(before)


def address_of(host: Host, card: str) -> IPv4Interface:
    """The first IPv4 address that a card has now."""
    printed = host.run(["ip", "-4", "-o", "addr", "show", "dev", card]).stdout
    found = re.search(r"inet (\S+)", printed)
    if found is None:
        raise LabError(f"{host.name} has no address on {card}")
    return IPv4Interface(found[1])


def _card(spec: HostSpec, name: str | None) -> Interface:
    for card in spec.interfaces:
        if name in (None, card.name):
            return card
    raise LabError(f"{spec.name} has no card {name!r}: there is {', '.join(card.name for card in spec.interfaces)}")


def _read(address: str) -> IPv4Interface:
    try:
        return IPv4Interface(address)
    except ValueError:
        raise LabError(f"{address!r} is not an address with its prefix, like 192.168.77.11/24") from None


# ---- network address translation


def rebind(router: Host) -> None:
    """The router forgets all connections, and gives those that go on other ports than before (at random, from now on).

    Raises LabError if it has no default route, and so no card to the outside.
    """
    name = _outside(router)
    chain = "type nat hook postrouting priority srcnat - 1; policy accept;"
    rule = f'oifname "{name}" meta l4proto {{ tcp, udp }} masquerade to :1024-65535 fully-random'
    table = "table ip rebinding"
    ruleset = f"{table}\ndelete {table}\n{table} {{\n chain postrouting {{\n {chain}\n {rule}\n }}\n}}\n"
    run_with([*enter_network(router.pid), "nft", "-f", "-"], ruleset)
    forget_connections(router)


def forget_connections(router: Host) -> None:
    """Flush its connection tracking; raises OSError when the kernel refuses."""
    with in_network_of(router.pid):
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with netlink:
        netlink.bind((0, 0))
        body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
        header = struct.pack("=IHHII", 16 + len(body), DELETE_CONNECTIONS, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        netlink.send(header + body)
        answer = netlink.recv(4096)
        kind, number = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
        if kind == NLMSG_ERROR and number:
            raise OSError(-number, os.strerror(-number))


def _outside(router: Host) -> str:
    printed = router.run(["ip", "route", "show", "default"]).stdout
    found = re.search(r"dev (\S+)", printed)
    if found is None:
        raise LabError(f"{router.name} has no default route: it translates nothing")
    return found[1]


# ---- processes


def programs(host: Host, pattern: str) -> list[int]:
    """The host's processes (their pids outside) whose command line matches; LabError if there is none."""
    found = [pid for pid, line in _command_lines(host) if re.search(pattern, line)]
    if not found:
        raise LabError(f"no program on {host.name} matches {pattern!r}")
    return found


def _command_lines(host: Host) -> list[tuple[int, str]]:
    lines = []
    space = os.readlink(host.namespace("pid"))
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if int(process.name) != host.pid and line and os.readlink(process / "ns" / "pid") == space:
                lines.append((int(process.name), line))
    return lines


def freeze(host: Host, pattern: str) -> list[int]:
    """Stop (SIGSTOP) the programs that match, until they are thawed; their pids. They stand still when this returns."""
    pids = _signal(host, pattern, signal.SIGSTOP)
    wait_until(lambda: all(map(is_stopped, pids)), f"{pattern!r} on {host.name} to stand still", SOON)
    return pids


def thaw(host: Host, pattern: str) -> list[int]:
    return _signal(host, pattern, signal.SIGCONT)


def kill(host: Host, pattern: str) -> list[int]:
    """SIGKILL to the programs that match; their pids."""
    return _signal(host, pattern, signal.SIGKILL)


def _signal(host: Host, pattern: str, number: signal.Signals) -> list[int]:
    pids = programs(host, pattern)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids
