"""Impaired networks: what is measured is what was asked for, packet by packet of the wire."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import apps
from warren.lab import HostSpec, Impairment, Interface, Lab, LabError, Network, Route, Topology
from warren.lab.host import CommandError, Host
from warren.lab.services import serve_iperf

UDP_SEGMENT, RCVBUFFORCE = 103, 33
HERE, THERE = "10.99.0.1", "10.99.0.2"

PAIR = Topology(
    name="office",
    networks=(Network("cable"), Network("rack", switch="far")),
    hosts=(
        HostSpec("near", (Interface("cable", f"{HERE}/24"),), (Route("default", via=THERE),)),
        HostSpec("far", (Interface("cable", f"{THERE}/24"), Interface("rack", "10.99.1.1/24", "lan0")), forwards=True),
        HostSpec("one", (Interface("rack", "10.99.1.2/24"),), (Route("default", via="10.99.1.1"),)),
        HostSpec("two", (Interface("rack", "10.99.1.3/24"),), (Route("default", via="10.99.1.1"),)),
    ),
)


@pytest.fixture(scope="module")
def topology() -> Topology:
    return PAIR


@pytest.fixture(scope="module")
def near(lab: Lab) -> Host:
    return lab["near"]


@pytest.fixture(scope="module", autouse=True)
def iperf(lab: Lab) -> None:
    serve_iperf(lab["far"])
    serve_iperf(lab["near"])


@pytest.fixture(autouse=True)
def cleared(lab: Lab, near: Host) -> Iterator[None]:
    pings(near, "10.99.1.2", 1)  # neighbours know each other, so that no test waits for an ARP answer that was lost
    yield
    for network in ("cable", "rack"):
        lab.links.clear(network)
        lab.links.mend(network)


def measured(client: Host, *options: str, server: str = THERE) -> dict[str, float]:
    """What iperf3's server received: bits_per_second, lost_percent, packets, ..."""
    try:
        said = json.loads(client.run(["iperf3", "-J", "-c", server, *options], timeout=15).stdout)
    except CommandError:  # over UDP its first packet is sent once, and may be one of those that get lost
        said = json.loads(client.run(["iperf3", "-J", "-c", server, *options]).stdout)
    if "-u" in options:
        return dict(said["end"]["sum"] | {"bits_per_second": said["end"]["sum_received"]["bits_per_second"]})
    return dict(said["end"]["sum_received"])


def pings(near: Host, address: str = THERE, count: int = 20) -> list[float]:
    """Round trips in milliseconds."""
    printed = near.run(["ping", "-n", "-c", str(count), "-i", "0.03", "-W", "2", address], check=False).stdout
    return [float(took) for took in re.findall(r"time=([\d.]+)", printed)]


def sent(lab: Lab, count: int, batch: int = 1) -> list[int]:
    """Numbered datagrams of 1,000 bytes from near to far, `batch` to a send call: the numbers in order of arrival."""
    with lab["far"].network():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab["near"].network():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((THERE, 0))
        receiver.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 1 << 26)
        receiver.setblocking(False)
        sender.connect(receiver.getsockname())
        came = list[int]()
        for first in range(0, count, batch):
            data = b"".join(struct.pack("!I", number) + bytes(996) for number in range(first, first + batch))
            sender.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))])
            if first % (10 * batch) == 0:
                came += drain(receiver)
        receiver.settimeout(0.5)
        return came + drain(receiver)


def drain(receiver: socket.socket) -> list[int]:
    came = list[int]()
    try:
        while True:
            came.append(struct.unpack("!I", receiver.recv(2000)[:4])[0])
    except (BlockingIOError, TimeoutError):
        return came


# --- each quantity


def test_loss_is_what_was_asked_for(lab: Lab, near: Host) -> None:
    lab.impair("cable", Impairment(loss=0.05), towards="far")
    said = measured(near, "-u", "-b", "16M", "-l", "200", "-t", "1")
    assert said["packets"] > 5_000
    assert said["lost_percent"] == pytest.approx(5, abs=1.5)
    report = lab.links.report("cable")
    assert report is not None and report.lost / report.arrived == pytest.approx(0.05, abs=0.01)


def test_loss_strikes_packets_of_the_wire_and_not_batches(lab: Lab) -> None:
    """Sent 40 to a call (UDP_SEGMENT): without the limit on segments whole batches would vanish."""
    lab.impair("cable", Impairment(loss=0.1), towards="far")
    came = set(sent(lab, 8_000, batch=40))
    lost = set(range(8_000)) - came
    assert len(lost) / 8_000 == pytest.approx(0.1, abs=0.03)
    assert len([number for number in lost if number + 1 in lost]) / len(lost) < 0.25


def test_a_tcp_flow_sends_packets_of_the_wire(lab: Lab, near: Host) -> None:
    lab.impair("cable", Impairment(loss=0.0001))
    capture = ["timeout", "20", "tcpdump", "-ni", "eth0", "-c", "300", "-w", "/tmp/wire", "tcp and dst port 5201"]
    with lab["far"].start(capture) as tcpdump:
        tcpdump.wait_for_output("listening on")
        measured(near, "-t", "1", "-b", "50M")
        assert tcpdump.wait() == 0
    lengths = re.findall(r"length (\d+)", lab["far"].run(["tcpdump", "-nr", "/tmp/wire"]).stdout)
    assert 0 < max(map(int, lengths)) <= 1460


@pytest.mark.parametrize("rate", [20, 200])
def test_rate_is_what_was_asked_for(lab: Lab, near: Host, rate: int) -> None:
    lab.impair("cable", Impairment(rate=rate * 10**6))
    carried = measured(near, "-t", "1", "-C", "cubic")["bits_per_second"] / 1e6
    assert rate * 0.6 < carried < rate * 1.05  # a busy machine gives the emulator less than it would need


def test_a_rate_that_is_exceeded_drops_the_rest(lab: Lab) -> None:
    """Of what is forwarded; a program on the host itself is held up by its own full send buffer."""
    lab.impair("cable", Impairment(rate=10**7))
    said = measured(lab["one"], "-u", "-b", "20M", "-l", "1000", "-t", "1", server=HERE)
    assert said["lost_percent"] == pytest.approx(50, abs=8)


def test_the_queue_is_as_long_as_was_asked_for(lab: Lab) -> None:
    """Behind the emulator too, whose own socket would have refused most of it."""
    lab.impair("cable", Impairment(delay=0.005, rate=20 * 10**6, queue=0.4), towards="far")
    came = sent(lab, 600)
    assert came == list(range(600)), "a quarter of a second at this rate"


def test_delay_is_what_was_asked_for(lab: Lab, near: Host) -> None:
    assert max(pings(near)) < 20
    lab.impair("cable", Impairment(delay=0.025))
    took = pings(near)
    assert len(took) == 20
    assert min(took) >= 50 and sorted(took)[10] < 54
    lab.impair("cable", Impairment(delay=0.03), towards="near")
    took = pings(near)
    assert min(took) >= 30 and sorted(took)[10] < 34


def test_jitter_varies_and_keeps_the_order(lab: Lab, near: Host) -> None:
    lab.impair("cable", Impairment(delay=0.02, jitter=0.01), towards="far")
    took = pings(near, count=60)
    assert min(took) >= 10 and sorted(took)[58] < 36 and max(took) - min(took) > 8
    came = sent(lab, 1_000)
    assert came == list(range(1_000))


def test_reordering_and_duplication_are_what_was_asked_for(lab: Lab) -> None:
    lab.impair("cable", Impairment(delay=0.01, reorder=0.05, duplicate=0.1), towards="far")
    came = sent(lab, 4_000)
    assert set(came) == set(range(4_000))
    assert sum(Counter(came).values()) - 4_000 == pytest.approx(400, abs=120)
    late = [number for at, number in enumerate(came) if number < max(came[:at], default=0)]
    assert len(set(late)) == pytest.approx(200, abs=80)
    report = lab.links.report("cable")
    assert report is not None and report.held >= 4_000
    assert report.duplicated == pytest.approx(400, abs=120) and report.overflowed == 0


def test_the_emulators_processor_time_is_reported(lab: Lab, near: Host) -> None:
    lab.impair("cable", Impairment(delay=0.01))
    measured(near, "-u", "-b", "20M", "-l", "1000", "-t", "1")
    report = lab.links.clear("cable")
    assert report is not None and 0 < report.processor < report.seconds


def test_all_together(lab: Lab, near: Host) -> None:
    lab.impair("cable", Impairment(loss=0.02, rate=10**7, delay=0.02, jitter=0.005), towards="far")
    said = measured(near, "-u", "-b", "5M", "-l", "500", "-t", "1")
    assert said["lost_percent"] == pytest.approx(2, abs=1.5)
    took = sorted(pings(near))
    assert took[0] >= 15 and took[10] < 28


# --- networks with a switch


def test_on_a_switch_every_host_is_impaired(lab: Lab) -> None:
    lab.impair("rack", Impairment(delay=0.01))
    for source, target in (("one", "10.99.1.3"), ("one", "10.99.1.1"), ("far", "10.99.1.2")):
        assert 20 <= min(pings(lab[source], target, 5)) < 25
    with pytest.raises(LabError, match="switch"):
        lab.impair("rack", Impairment(delay=0.01), towards="one")


# --- cutting


def test_a_cut_is_silent_and_can_be_one_way(lab: Lab, near: Host) -> None:
    with apps.origin(lab["far"], apps.echo) as port, apps.connected(near, THERE, port) as client:
        lab.links.cut("cable", towards="far")
        assert pings(near, count=2) == []
        client.sendall(b"kept by the kernel")
        assert len(re.findall("eth0.*UP", near.run(["ip", "-br", "link"]).stdout)) == 1
        lab.links.mend("cable")
        assert client.recv(100) == b"kept by the kernel"
    lab.links.cut("rack", towards="one")
    assert pings(lab["two"], "10.99.1.2", 1) == [] and len(pings(lab["two"], "10.99.1.1", 1)) == 1


# --- nothing stays


def state_of(lab: Lab) -> list[str]:
    look = "nft list ruleset; ls /sys/class/net; tc qdisc show; ip -d -o link | grep -o 'gso_max_segs [0-9]*'"
    return [host.run(["sh", "-c", look]).stdout for host in lab.hosts.values()]


def test_clearing_leaves_everything_as_it_was(lab: Lab, near: Host) -> None:
    before = state_of(lab)
    for network in ("cable", "rack"):
        lab.impair(network, Impairment(loss=0.01, rate=10**8, delay=0.01))
        lab.links.cut(network)
    assert state_of(lab) != before
    for network in ("cable", "rack"):
        lab.links.clear(network)
        lab.links.mend(network)
        assert lab.links.report(network) is None
    assert state_of(lab) == before
    assert max(pings(near, count=5)) < 20


def test_what_cannot_be_is_told_in_a_line(lab: Lab) -> None:
    with pytest.raises(LabError, match="no network 'cabel' in this lab: there is cable, rack"):
        lab.impair("cabel", Impairment(loss=0.1))
    with pytest.raises(LabError, match="'one' is not in cable"):
        lab.links.cut("cable", towards="one")


def test_the_command(lab: Lab) -> None:
    with Lab() as office:
        office.release()

        def link(*words: str) -> str:
            argv = [sys.executable, "-m", "warren.lab", *words, "--name", office.name]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
            return done.stdout + done.stderr

        assert "not impaired" in link("link", "home-line")
        assert "1%" in link("link", "home-line", "--loss", "1%", "--rate", "100mbit", "--delay", "25ms", "--seed", "7")
        assert 50 <= min(pings(office["laptop"], "203.0.113.10", 3)) < 60
        assert "processor time" in link("link", "home-line")
        assert "loss 1%" in link("link", "home-line", "--clear")
        assert "lab: --delay: '25' is not a time" in link("link", "home-line", "--delay", "25")
        assert link("cut", "home-line") == ""
        assert pings(office["laptop"], "203.0.113.10", 1) == []
        assert link("mend", "home-line") == ""
        assert len(pings(office["laptop"], "203.0.113.10", 1)) == 1
        assert not list(Path(f"/run/warren-lab/{office.name}/links").glob("*"))
