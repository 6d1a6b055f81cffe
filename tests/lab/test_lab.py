"""The lab itself: hosts that are hosts, nothing that leads past Warren, and nothing that stays."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from warren.lab import OFFICE, CommandError, Lab, LabError, wait_until
from warren.lab.entering import in_network_of
from warren.lab.services import (
    DATABASE_PASSWORD,
    DATABASE_ROWS,
    DNS_PORT,
    HTTP_PORT,
    IPERF_PORT,
    PAGE,
    POSTGRES_PORT,
    SSH_PORT,
    Services,
)
from warren.lab.state import DIRECTORY

SITE_DOORS = [
    ("10.10.0.10", HTTP_PORT),
    ("10.10.0.10", SSH_PORT),
    ("10.10.0.10", IPERF_PORT),
    ("10.10.0.20", POSTGRES_PORT),
    ("10.10.0.53", DNS_PORT),
]
SITE_HOSTS = ["10.10.0.1", "10.10.0.2", "10.10.0.10", "10.10.0.20", "10.10.0.53"]

# Prints which of the doors (ADDRESS:PORT ...) take a TCP connection within a second, all tried at once.
KNOCK = """
import asyncio, sys
async def knock(door):
    address, port = door.rsplit(":", 1)
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, int(port)), 1)
    except (OSError, TimeoutError):
        return
    print(door)
    writer.close()
async def main():
    await asyncio.gather(*map(knock, sys.argv[1:]))
asyncio.run(main())
"""

HOLD_A_LAB = """
import sys, time
from warren.lab import Lab
lab = Lab(name=sys.argv[1])
lab.up()
lab["laptop"].start(["sleep", "1000"])
print("up", flush=True)
time.sleep(1000)
"""


def open_doors(lab: Lab, host: str, doors: list[tuple[str, int]]) -> list[str]:
    return lab[host].python(KNOCK, *(f"{address}:{port}" for address, port in doors)).stdout.split()


def answering(lab: Lab, host: str, addresses: list[str]) -> list[str]:
    script = 'for a in "$@"; do ping -c1 -W1 "$a" >/dev/null 2>&1 && echo "$a" & done; wait'
    return sorted(lab[host].run(["sh", "-c", script, "ping", *addresses]).stdout.split())


def all_doors(doors: list[tuple[str, int]]) -> list[str]:
    return sorted(f"{address}:{port}" for address, port in doors)


# --- hosts that are hosts


@pytest.mark.parametrize("folder", ["/etc", "/run", "/var/lib", "/var/log", "/tmp", "/root", "/dev/shm"])
def test_each_host_has_folders_of_its_own(lab: Lab, folder: str) -> None:
    name = f"{folder}/{secrets.token_hex(8)}"
    lab["laptop"].run(["touch", name])
    assert lab["laptop"].path(name).exists()
    assert not lab["edge"].path(name).exists()
    assert not Path(name).exists()


def test_each_host_has_its_own_name_resolver_and_users(lab: Lab) -> None:
    ours = os.uname().nodename
    for host in lab.hosts.values():
        assert host.run(["hostname"]).stdout == f"{host.name}\n"
        assert host.read("/etc/resolv.conf") == f"nameserver {host.spec.nameserver}\n"
        assert host.run(["id", "-un"]).stdout == "root\n"
    assert os.uname().nodename == ours


def test_each_host_sees_only_its_own_processes(lab: Lab) -> None:
    with lab["edge"].start(["sleep", "1000"]) as other:
        assert "sleep" not in lab["laptop"].run(["ps", "ax"]).stdout
        assert "sleep 1000" in lab["edge"].run(["ps", "ax"]).stdout
        assert Path(f"/proc/{other.pid}/cmdline").read_text() == "sleep\x001000\x00"


def test_a_host_can_make_a_tun_device_and_owns_its_sysfs(lab: Lab) -> None:
    lab["laptop"].run(["ip", "tuntap", "add", "dev", "tried0", "mode", "tun"])
    assert lab["laptop"].run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo", "tried0"]
    assert not Path("/sys/class/net/tried0").exists()
    lab["laptop"].run(["ip", "link", "del", "tried0"])


def test_no_ipv6_starts_by_itself(lab: Lab) -> None:
    for host in lab.hosts.values():
        assert set(re.findall(r"inet6 (\S+)", host.run(["ip", "-6", "addr"]).stdout)) == {"::1/128"}


def test_a_host_has_little_of_our_environment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://192.0.2.99:3128")
    assert "proxy" not in lab["laptop"].run(["env"]).stdout
    assert "ANSWER=42" in lab["laptop"].run(["env"], env={"ANSWER": "42"}).stdout


# --- the programs in them


def test_run_says_what_a_failed_command_printed(lab: Lab) -> None:
    with pytest.raises(CommandError, match=r"laptop: ls /nowhere returned 2\n.*No such file") as caught:
        lab["laptop"].run(["ls", "/nowhere"])
    assert caught.value.result is not None
    assert lab["laptop"].run(["ls", "/nowhere"], check=False).returncode == caught.value.result.returncode


def test_run_ends_what_takes_too_long_with_its_children(lab: Lab) -> None:
    with pytest.raises(CommandError, match=r"more than 0\.5 s\nbegun"):
        lab["laptop"].run(["sh", "-c", "echo begun; sleep 999 & sleep 999"], timeout=0.5)
    wait_until(lambda: "sleep 999" not in lab["laptop"].run(["ps", "ax"]).stdout, "the end of both")


def test_run_as_another_user_with_input(lab: Lab) -> None:
    assert lab["db"].run(["sh", "-c", "id -un; cat"], user="postgres", input="read").stdout == "postgres\nread"


def test_a_started_program_is_logged_signalled_and_ended(lab: Lab) -> None:
    source = "trap 'kill $!; echo stopping; exit 7' TERM; sleep 1000 & echo begun; wait"
    process = lab["laptop"].start(["bash", "-c", source], log="tried")
    assert process.wait_for_output(r"^begun$")
    assert process.running
    assert process.stop() == 7
    assert process.output() == "begun\nstopping\n"
    assert process.log == lab.logs / "tried.log"
    assert lab["laptop"].start(["sleep", "1000"]).kill() == -signal.SIGKILL
    with pytest.raises(RuntimeError, match="ended without printing"):
        lab["laptop"].start(["true"]).wait_for_output("anything")


def test_files_are_written_with_their_mode(lab: Lab) -> None:
    lab["laptop"].write("/root/.config/tried/token", "secret", 0o600)
    assert lab["laptop"].run(["stat", "-c", "%a", "/root/.config/tried/token"]).stdout == "600\n"
    assert lab["laptop"].read("/root/.config/tried/token") == "secret"


# --- the network: what leads where


def test_the_laptop_reaches_the_edge_and_nobody_reaches_the_laptop(lab: Lab) -> None:
    with lab["edge"].network(), socket.create_server(("203.0.113.10", 443)) as server:
        with lab["laptop"].network(), socket.create_connection(("203.0.113.10", 443), 5) as client:
            assert client.getsockname()[0] == "192.168.77.10"
        accepted, address = server.accept()
        accepted.close()
    assert address[0] == "192.0.2.2"  # the home router's
    assert answering(lab, "laptop", ["203.0.113.10"]) == ["203.0.113.10"]
    with lab["laptop"].network(), socket.create_server(("0.0.0.0", 8080)):
        assert open_doors(lab, "home", [("192.168.77.10", 8080)]) == []
        assert answering(lab, "home", ["192.168.77.10"]) == []


def test_at_the_site_every_door_is_open(lab: Lab, services: Services) -> None:
    """So the tests below knock rightly: the same doors, from beside them."""
    assert sorted(open_doors(lab, "connector", SITE_DOORS)) == all_doors(SITE_DOORS)
    assert answering(lab, "connector", SITE_HOSTS) == sorted(SITE_HOSTS)
    assert answering(lab, "connector", ["203.0.113.10"]) == ["203.0.113.10"]


@pytest.mark.parametrize("source", ["laptop", "home", "internet", "edge"])
def test_nothing_leads_from_outside_to_the_site(lab: Lab, services: Services, source: str) -> None:
    assert open_doors(lab, source, SITE_DOORS) == []
    assert answering(lab, source, SITE_HOSTS) == []
    query = ["dig", "+time=1", "+tries=1", "@10.10.0.53", "payroll.internal"]
    assert lab[source].run(query, check=False).returncode != 0


@pytest.mark.parametrize("source", ["laptop", "home", "internet", "edge"])
def test_nothing_leads_to_the_site_even_if_everybody_routes_it_there(lab: Lab, services: Services, source: str) -> None:
    hops = {"laptop": "192.168.77.1", "home": "192.0.2.1", "internet": "198.51.100.2", "edge": "203.0.113.1"}
    for host, hop in hops.items():
        lab[host].run(["ip", "route", "add", "10.10.0.0/16", "via", hop])
    try:
        assert open_doors(lab, source, SITE_DOORS) == []
        assert answering(lab, source, SITE_HOSTS) == []
    finally:
        for host in hops:
            lab[host].run(["ip", "route", "del", "10.10.0.0/16"])


@pytest.mark.parametrize("source", ["laptop", "internet", "edge"])
def test_the_office_router_accepts_nothing_from_outside(lab: Lab, services: Services, source: str) -> None:
    with lab["office"].network(), socket.create_server(("0.0.0.0", 443)):
        assert open_doors(lab, "connector", [("10.10.0.1", 443)]) == ["10.10.0.1:443"]
        assert open_doors(lab, source, [("198.51.100.2", 443), ("198.51.100.2", SSH_PORT)]) == []
    assert answering(lab, source, ["198.51.100.2"]) == []


@pytest.mark.parametrize(
    ("address", "port", "number"),
    [
        ("10.10.0.10", 81, errno.ECONNREFUSED),
        ("10.10.66.1", 80, errno.EHOSTUNREACH),
        ("10.10.77.1", 80, errno.EHOSTUNREACH),
    ],
)
def test_origins_that_refuse_do_so_at_once(lab: Lab, address: str, port: int, number: int) -> None:
    with lab["connector"].network(), socket.socket() as client:
        client.settimeout(5)
        assert client.connect_ex((address, port)) == number


def test_the_silent_origin_answers_nothing(lab: Lab) -> None:
    with lab["connector"].network(), socket.socket() as client:
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.connect(("10.10.0.66", 80))


# --- the servers


def test_web_and_names(lab: Lab, services: Services) -> None:
    connector = lab["connector"]
    assert connector.run(["curl", "-sS", "http://payroll.internal/"]).stdout == PAGE
    assert connector.run(["dig", "+short", "DB.internal"]).stdout == "10.10.0.20\n"
    assert "NXDOMAIN" in connector.run(["dig", "elsewhere.internal"]).stdout
    assert lab["laptop"].run(["dig", "+short", "edge.example.net"]).stdout == "203.0.113.10\n"
    assert "NXDOMAIN" in lab["laptop"].run(["dig", "payroll.internal"]).stdout


def test_ssh(lab: Lab, services: Services) -> None:
    services.ssh.give_to(lab["connector"], "payroll.internal")
    assert lab["connector"].run(["ssh", "root@payroll.internal", "hostname"]).stdout == "payroll\n"
    refused = lab["db"].run(["ssh", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "10.10.0.10"], check=False)
    assert "Permission denied" in refused.stderr


def test_postgres(lab: Lab, services: Services) -> None:
    psql = ["psql", "-tA", "-h", "db.internal", "-U", "clerk", "payroll", "-c", "SELECT name, euros FROM salaries"]
    rows = lab["connector"].run(psql, env={"PGPASSWORD": DATABASE_PASSWORD}).stdout
    assert rows.splitlines() == [f"{name}|{euros}" for name, euros in DATABASE_ROWS]
    assert lab["connector"].run(psql, env={"PGPASSWORD": "wrong"}, check=False).returncode == 2


def test_iperf(lab: Lab, services: Services) -> None:
    report = lab["connector"].run(["iperf3", "-c", "10.10.0.10", "-n", "1M", "--json"]).stdout
    assert json.loads(report)["end"]["sum_received"]["bytes"] > 0


# --- variations


def test_congestion_control_and_batch_size_are_as_the_topology_says() -> None:
    varied = OFFICE.with_host("laptop", congestion="cubic").with_host("edge", congestion="bbr")
    with Lab(varied.with_network("home-lan", gso_max_segs=7, mtu=1400)) as lab:
        with lab["edge"].network():
            server = socket.create_server(("203.0.113.10", 443))
        with lab["laptop"].network():
            client = socket.create_connection(("203.0.113.10", 443), 5)
        accepted, _ = server.accept()
        used = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) for end in (client, accepted)]
        for end in (client, accepted, server):
            end.close()
        assert [name.rstrip(b"\0") for name in used] == [b"cubic", b"bbr"]
        for host, card in (("laptop", "eth0"), ("home", "lan0")):
            (link,) = json.loads(lab[host].run(["ip", "-d", "-j", "link", "show", card]).stdout)
            assert (link["gso_max_segs"], link["mtu"]) == (7, 1400)


# --- nothing stays


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name; whatever of it is left at the end is taken down."""
    name = f"tried-{secrets.token_hex(4)}"
    yield name
    if (DIRECTORY / name).exists():
        Lab(name=name).down()


def machine() -> dict[str, str]:
    """What of this machine the lab must leave alone."""
    commands = ("ip link", "ip addr", "ip route show table all", "ip rule", "nft list ruleset", "cat /etc/resolv.conf")
    state = {each: subprocess.run(each.split(), capture_output=True, text=True).stdout for each in commands}
    return {**state, "mounts": Path("/proc/self/mountinfo").read_text(), "name": os.uname().nodename}


def namespaces(lab: Lab) -> set[str]:
    return {os.readlink(host.namespace(kind)) for host in lab.hosts.values() for kind in ("net", "mnt", "pid", "uts")}


def held_namespaces() -> set[str]:
    """Of every process on the machine that is no zombie."""
    held = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("stat").read_text().rpartition(") ")[2][0] != "Z":
                held |= {os.readlink(process / "ns" / kind) for kind in ("net", "mnt", "pid", "uts")}
        except OSError:
            continue  # it has ended
    return held


def processes_named(text: str) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_text(errors="replace")
        except OSError:
            continue
        if text in command and file.parent.name != str(os.getpid()):
            found.append(command)
    return found


def test_up_and_down_leave_the_machine_alone(name: str) -> None:
    before = machine()
    lab = Lab(name=name)
    with lab:
        assert machine() == before
        lab["laptop"].run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"])
        lab["office"].run(["ip", "netns", "add", "inner"])
        lab["office"].run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        inside = namespaces(lab)
        assert inside <= held_namespaces()
        first = [host.pid for host in lab.hosts.values()]
    assert machine() == before
    assert not inside & held_namespaces()
    assert not any(Path(f"/proc/{pid}").exists() for pid in first)
    assert not (DIRECTORY / name).exists()
    assert processes_named(name) == []


def test_a_failure_on_the_way_up_leaves_nothing(name: str) -> None:
    with pytest.raises(subprocess.CalledProcessError), Lab(OFFICE.with_host("edge", firewall="nonsense"), name=name):
        pass
    assert not (DIRECTORY / name).exists()
    assert processes_named(name) == []


def lab_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "warren.lab", *arguments], capture_output=True, text=True, timeout=60)


def test_a_killed_holder_leaves_a_lab_that_down_clears_up(name: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD_A_LAB, name], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "up\n"
    assert f"is held by process {holder.pid}" in lab_command("down", "--name", name).stderr
    inside = namespaces(Lab.attach(name))
    holder.kill()
    holder.communicate()
    assert inside <= held_namespaces()
    with pytest.raises(LabError, match="lab down --name"):
        Lab.attach(name)
    assert lab_command("down", "--name", name).returncode == 0
    assert not inside & held_namespaces()
    assert not (DIRECTORY / name).exists()


@pytest.mark.parametrize("hosts_made", [0, 1, 5, 10])
def test_a_holder_killed_on_the_way_up_is_cleared_up_by_the_next_lab_of_the_name(name: str, hosts_made: int) -> None:
    records = DIRECTORY / name / "hosts"
    holder = subprocess.Popen([sys.executable, "-c", HOLD_A_LAB, name], stdout=subprocess.PIPE)
    wait_until(lambda: records.exists() and len(list(records.glob("*.json"))) >= hosts_made, "hosts being made")
    holder.kill()
    holder.communicate()
    with Lab(name=name) as lab:
        inside = namespaces(lab)
        wait_until(lambda: len(processes_named(name)) == 2 * len(lab.hosts), "the end of what the first one had begun")
    wait_until(lambda: processes_named(name) == [], "the end of all that bears the lab's name")
    assert not inside & held_namespaces()


def test_two_labs_of_one_topology_are_apart(lab: Lab) -> None:
    with Lab() as other:
        assert not namespaces(lab) & namespaces(other)
        with other["edge"].network(), socket.create_server(("203.0.113.10", 444)):
            assert open_doors(lab, "laptop", [("203.0.113.10", 444)]) == []
            assert open_doors(other, "laptop", [("203.0.113.10", 444)]) == ["203.0.113.10:444"]


def test_a_thread_comes_back_to_its_own_network(lab: Lab) -> None:
    ours = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(RuntimeError), in_network_of(lab["laptop"].pid):
        assert os.readlink("/proc/thread-self/ns/net") == os.readlink(lab["laptop"].namespace("net"))
        raise RuntimeError
    assert os.readlink("/proc/thread-self/ns/net") == ours


# --- the command


def test_the_command_from_up_to_down(name: str) -> None:
    assert "is up" in lab_command("up", "--name", name).stdout
    again = lab_command("up", "--name", name)
    assert (again.returncode, again.stderr) == (
        1,
        f"lab: lab {name!r} is up already: take it down with `lab down --name {name}`\n",
    )
    ran = lab_command("exec", "--name", name, "edge", "--", "sh", "-c", "hostname; pwd; exit 3")
    assert (ran.stdout, ran.returncode) == ("edge\n/\n", 3)
    assert "203.0.113.10/24" in lab_command("status", "--name", name).stdout
    nobody = lab_command("exec", "--name", name, "nobody", "--", "true")
    assert nobody.returncode == 1 and "there is laptop, home" in nobody.stderr
    assert lab_command("down", "--name", name).returncode == 0
    gone = lab_command("exec", "--name", name, "edge", "--", "true")
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    "arguments", [["up", "--name", "../x"], ["down", "--name", "x/y"], ["up", "--topology", "moon"]]
)
def test_wrong_arguments_get_one_line(arguments: list[str]) -> None:
    result = lab_command(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("lab: ") and result.stderr.count("\n") == 1
