"""Changes to a host, and that nothing of them stays behind: real routes, rules, files, a real `kill -9`."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from tests.lab.agent.throwaway import in_throwaway_namespace, wait_for
from warren.agent.capture.tun import Tun
from warren.agent.host import netlink
from warren.agent.host.guardian import Guardian
from warren.agent.host.journal import Journal
from warren.agent.host.resolver import ResolvConf
from warren.agent.host.routes import MARK, HostRoutes, NetworkChanges, Plan
from warren.agent.host.undo import UNDOERS

NAME = "warren-test"
ADDRESS, RESOLVER = IPv4Address("100.80.0.1"), IPv4Address("100.80.0.2")
SYNTHETIC = IPv4Network("100.80.0.0/16")
INCLUDED = [IPv4Network("10.10.0.0/16"), IPv4Network("172.16.0.0/12")]
BEFORE = b"# mine\nsearch home.example\nnameserver 192.168.1.1\noptions edns0\n"


def add_lan(address: str, length: int, name: str = "lan0") -> None:
    """A local network: a veth with an address."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        if not ip.link_lookup(ifname=name):
            ip.link("add", ifname=name, kind="veth", peer=f"{name}p")
            for end in (name, f"{name}p"):
                ip.link("set", index=ip.link_lookup(ifname=end)[0], state="up")
        ip.addr("add", index=ip.link_lookup(ifname=name)[0], address=address, prefixlen=length)


def host_state() -> tuple[list[str], list[str]]:
    """Rules and routes of this namespace, but for the local table's."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        rules = [f"{rule.get_attr('FRA_PRIORITY')} {rule.get_attr('FRA_TABLE')}" for rule in ip.get_rules(family=2)]
        routes = [
            f"{route.get_attr('RTA_TABLE')} {route.get_attr('RTA_DST')}/{route['dst_len']} {route['type']}"
            for route in ip.get_routes(family=2)
            if route.get_attr("RTA_TABLE") != 255
        ]
    return sorted(rules), sorted(routes)


def way_to(address: str, mark: int = 0) -> str:
    """The interface that a socket with this mark would use; "" for none."""
    from pyroute2 import IPRoute, NetlinkError

    with IPRoute() as ip:
        try:
            route = ip.route("get", dst=address, **({"mark": mark} if mark else {}))[0]
        except NetlinkError:
            return ""
        return str(ip.get_links(route.get_attr("RTA_OIF"))[0].get_attr("IFLA_IFNAME"))


def start_agent(directory: Path, etc: Path, die_before: str | None = None, ready: int = -1) -> None:
    """What the agent does to the host, in its order. `die_before`: SIGKILL between that change's entry and itself."""
    journal = Journal.open(directory, UNDOERS)
    guardian = Guardian.start(journal)
    tun = Tun.open(NAME, 1500)
    if die_before is not None:
        _die_before(journal, die_before)

    async def change() -> Plan:
        return await HostRoutes(journal, NAME, ADDRESS, [SYNTHETIC]).set_up(INCLUDED)

    asyncio.run(change())
    ResolvConf(journal, RESOLVER, etc / "resolv.conf").install()
    if ready >= 0:
        os.write(ready, str(guardian.process.pid).encode())
        signal.pause()
    assert journal.undo_all().kept == ()
    tun.close()
    guardian.dismiss()
    journal.close()


def _die_before(journal: Journal, kind: str) -> None:
    record = journal.record

    def fatal(undo: dict[str, object]) -> int:
        record(undo)
        if undo["kind"] == kind:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    journal.record = fatal  # type: ignore[method-assign]


def in_child(function: Callable[[], None]) -> int:
    """Fork; the child runs the function."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    return child


def etc_of(tmp_path: Path) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "resolv.conf").write_bytes(BEFORE)
    return etc


def guardian_is_done(directory: Path) -> bool:
    return not (directory / "host.journal").exists()


@in_throwaway_namespace
def test_routes_lead_into_the_tun_and_marked_sockets_outside(tmp_path: Path) -> None:
    add_lan("192.168.1.7", 24)
    subprocess.run(["ip", "route", "add", "default", "via", "192.168.1.1"], check=True)
    before = host_state()
    journal = Journal.open(tmp_path, UNDOERS)
    tun = Tun.open(NAME, 1500)

    async def scenario() -> None:
        made = await HostRoutes(journal, NAME, ADDRESS, [SYNTHETIC]).set_up(INCLUDED)
        assert made == Plan(tuple(INCLUDED), (), ())

    asyncio.run(scenario())
    assert way_to("10.10.0.5") == way_to("172.20.1.1") == way_to(str(RESOLVER)) == NAME
    assert way_to("10.10.0.5", MARK) == "lan0"  # an edge in there is reached from outside
    assert way_to("8.8.8.8") == way_to("192.168.1.9") == "lan0"
    assert IPv4Network("192.168.1.0/24") in netlink.taken_networks(NAME)
    assert not any(network.overlaps(SYNTHETIC) for network in netlink.taken_networks(NAME))
    done = journal.undo_all()
    assert (done.notes, done.kept) == ((), ())
    assert host_state() == before
    tun.close()


@in_throwaway_namespace
def test_a_local_network_suspends_and_a_change_is_noticed(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, UNDOERS)
    tun = Tun.open(NAME, 1500)

    def two_lans() -> None:
        add_lan("10.10.3.4", 16)  # the same network
        add_lan("172.16.5.1", 24)  # a part of the other

    def two_lans_less() -> None:
        subprocess.run(["ip", "link", "del", "lan0"], check=True)

    def ways(*addresses: str) -> list[str]:
        return [way_to(address) for address in addresses]

    async def scenario() -> None:
        routes = HostRoutes(journal, NAME, ADDRESS)
        await routes.set_up(INCLUDED)
        changed = asyncio.Event()
        with NetworkChanges(changed.set):
            await asyncio.to_thread(two_lans)
            await asyncio.wait_for(changed.wait(), 5)
        seen = await routes.review()
        assert [(str(s.included), str(s.part)) for s in seen.suspended] == [
            ("10.10.0.0/16", "10.10.0.0/16"),
            ("172.16.0.0/12", "172.16.5.0/24"),
        ]
        assert await asyncio.to_thread(ways, "10.10.0.5", "172.16.5.9", "172.16.6.9") == ["lan0", "lan0", NAME]
        await asyncio.to_thread(two_lans_less)
        assert (await routes.review()).suspended == ()
        assert await asyncio.to_thread(ways, "10.10.0.5", "172.16.5.9") == [NAME, NAME]

    asyncio.run(scenario())
    journal.undo_all()
    tun.close()


@in_throwaway_namespace
def test_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    add_lan("172.16.5.1", 24)
    etc, before = etc_of(tmp_path), host_state()
    start_agent(tmp_path / "state", etc)
    assert host_state() == before
    assert (etc / "resolv.conf").read_bytes() == BEFORE
    assert guardian_is_done(tmp_path / "state")


@in_throwaway_namespace
def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    add_lan("172.16.5.1", 24)  # so that there is a throw route, which does not go with the TUN
    etc, before, directory = etc_of(tmp_path), host_state(), tmp_path / "state"
    reader, writer = os.pipe()
    agent = in_child(lambda: start_agent(directory, etc, ready=writer))
    guardian = int(os.read(reader, 20))
    assert host_state() != before
    assert (etc / "resolv.conf").read_bytes() != BEFORE
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guardian, number)  # a guardian ignores these
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    wait_for(lambda: guardian_is_done(directory))
    assert host_state() == before
    assert (etc / "resolv.conf").read_bytes() == BEFORE
    assert list(etc.iterdir()) == [etc / "resolv.conf"]


@in_throwaway_namespace
def test_a_new_agent_waits_for_the_old_ones_guardian(tmp_path: Path) -> None:
    add_lan("172.16.5.1", 24)
    etc, before, directory = etc_of(tmp_path), host_state(), tmp_path / "state"
    reader, writer = os.pipe()
    agent = in_child(lambda: start_agent(directory, etc, ready=writer))
    os.read(reader, 20)
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    journal = Journal.open(directory, UNDOERS)  # at once
    assert journal.left_over.undone == 0
    assert host_state() == before
    assert (etc / "resolv.conf").read_bytes() == BEFORE


@pytest.mark.parametrize("kind", ["address", "route", "rule", "resolv.conf"])
@in_throwaway_namespace
def test_killed_between_entry_and_change(tmp_path: Path, kind: str) -> None:
    add_lan("172.16.5.1", 24)
    etc, before, directory = etc_of(tmp_path), host_state(), tmp_path / "state"
    agent = in_child(lambda: start_agent(directory, etc, die_before=kind))
    assert os.waitpid(agent, 0)[1] == signal.SIGKILL
    wait_for(lambda: guardian_is_done(directory))
    assert host_state() == before
    assert (etc / "resolv.conf").read_bytes() == BEFORE


@in_throwaway_namespace
def test_after_a_power_loss_the_next_start_undoes(tmp_path: Path) -> None:
    add_lan("172.16.5.1", 24)
    etc, before, directory = etc_of(tmp_path), host_state(), tmp_path / "state"
    reader, writer = os.pipe()
    agent = in_child(lambda: start_agent(directory, etc, ready=writer))
    os.kill(int(os.read(reader, 20)), signal.SIGKILL)  # the guardian first
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    assert host_state() != before
    journal = Journal.open(directory, UNDOERS)
    assert journal.left_over.undone > 0
    assert journal.left_over.kept == ()
    assert host_state() == before
    assert (etc / "resolv.conf").read_bytes() == BEFORE


@in_throwaway_namespace
def test_a_bind_mounted_resolv_conf_is_written_in_place(tmp_path: Path) -> None:
    etc = etc_of(tmp_path)
    outside = tmp_path / "outside"
    outside.write_bytes(BEFORE)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(str(outside).encode(), str(etc / "resolv.conf").encode(), None, 0x1000, None) == 0
    journal = Journal.open(tmp_path / "state", UNDOERS)
    resolver = ResolvConf(journal, RESOLVER, etc / "resolv.conf")
    assert resolver.install().nameservers == ("192.168.1.1",)
    assert f"nameserver {RESOLVER}\n".encode() in outside.read_bytes()
    assert resolver.still_ours()
    assert resolver.undo() is None
    assert outside.read_bytes() == BEFORE
    assert list(etc.iterdir()) == [etc / "resolv.conf"]


def test_the_guardian_is_light() -> None:
    listing = "import sys, warren.agent.host.guardian; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pyroute2", "asyncio", "structlog", "cryptography"}.intersection(loaded)
