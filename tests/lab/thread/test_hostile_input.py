"""Hostile input from every side: at the edge's port, at the nodes', on the TUN, and from an enrolled device.

Whatever comes is dropped and counted, or ends the connection of who sent it; a flow beside it goes on byte for byte.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab import apps, hostile_agent
from tests.lab.bystander import bystander, sniffed
from warren.edge.presence import UNPROVED_SOURCE
from warren.lab.deployment import EDGE_ADDRESS, Deployment
from warren.lab.host import Host

scapy = pytest.importorskip("scapy.all")

EDGE = (EDGE_ADDRESS, 4433)


@pytest.fixture(scope="module")
def outsider(deployment: Deployment) -> Host:
    """A router of the internet: it may forge any source address. Its device is enrolled like any other."""
    host = deployment.lab["internet"]
    deployment.enrol(host, "mallory")
    return host


def metrics(host: Host, address: str) -> dict[str, float]:
    page = host.run(["curl", "-sf", f"http://{address}/metrics"]).stdout
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in page.splitlines() if line[0] != "#")
    }


def counted(deployment: Deployment) -> float:
    """What the edge has dropped, whatever the reason."""
    said = metrics(deployment.edge, "127.0.0.1:9311")
    return sum(value for name, value in said.items() if re.match(r"warren_edge_(packets|quic|control)_dropped", name))


def send_packets(host: Host, packets: list[bytes], *, a_second: int = 2000) -> None:
    """Whole IPv4 packets, as they are, paced; what the host's own kernel refuses to send is let be."""
    with host.network():
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    began = time.monotonic()
    with sock:
        for number, packet in enumerate(packets):
            try:
                sock.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
            except OSError:
                continue
            while time.monotonic() < began + number / a_second:
                time.sleep(0.005)


def spoilt(rnd: random.Random, packet: bytes) -> bytes:
    """The UDP packet with its payload cut, changed, repeated or lengthened; headers made anew."""
    read = scapy.IP(packet)
    data = bytearray(bytes(read[scapy.UDP].payload))
    match rnd.randrange(5):
        case 0:
            del data[rnd.randrange(len(data) or 1) :]
        case 1:
            for _ in range(rnd.randrange(1, 5)):
                data[rnd.randrange(len(data))] ^= 1 << rnd.randrange(8)
        case 2:
            data += rnd.randbytes(rnd.randrange(1, 50))
        case 3:
            data[: rnd.randrange(1, 30)] = rnd.randbytes(20)
        case _:
            data = data[: rnd.randrange(1, 40)] * 3
    ip, udp = read, read[scapy.UDP]
    return bytes(
        scapy.IP(src=ip.src, dst=ip.dst, tos=ip.tos) / scapy.UDP(sport=udp.sport, dport=udp.dport) / bytes(data[:1460])
    )


@pytest.fixture(scope="module")
def recorded(deployment: Deployment, outsider: Host) -> list[bytes]:
    """Everything that Warren's hosts said to each other for a while: handshakes, bindings, circuits, flows."""
    with sniffed(outsider) as found:
        run_attacks(outsider, ["packets"], [])
        assert deployment.laptop.run(["curl", "-sS", "http://10.10.0.10/"]).stdout
    packets = list(dict.fromkeys(packet for packet in found if 28 < len(packet) <= 1500 and packet[9] == 17))
    assert len(packets) > 100
    return packets


def run_attacks(host: Host, attacks: list[str], circuits: list[str]) -> dict[str, Any]:
    program = str(Path(hostile_agent.__file__))
    said = host.run([sys.executable, program, ",".join(attacks), *circuits], timeout=120).stdout
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result


# --- packets


def test_packets_replayed_and_spoilt(deployment: Deployment, outsider: Host, recorded: list[bytes]) -> None:
    """Each from the address that it once came from, to the edge and to both nodes, as it was and spoilt."""
    rnd = random.Random(1)
    packets = recorded[:700]
    sent = [*packets, *(spoilt(rnd, packet) for packet in packets), *reversed(packets)]
    before = counted(deployment)
    with bystander(deployment):
        send_packets(outsider, sent)
    assert counted(deployment) > before


def test_random_and_malformed_packets_at_the_edges_port(deployment: Deployment, outsider: Host) -> None:
    rnd = random.Random(2)
    sent = []
    for number in range(1200):
        source = f"198.18.{rnd.randrange(256)}.{rnd.randrange(1, 255)}"
        head = scapy.IP(src=source, dst=EDGE[0]) / scapy.UDP(sport=rnd.randrange(1, 65536), dport=EDGE[1])
        first = bytes([number % 256])
        body = first + rnd.randbytes(rnd.choice([0, 1, 6, 7, 8, 9, 20, 60, 1199, 1200, 1300]))
        if number % 3 == 0:  # long header, version 1, Initial
            body = (
                b"\xc3\0\0\0\1\x08" + rnd.randbytes(8) + b"\x08" + rnd.randbytes(8) + bytes(2) + body.ljust(1180, b"\0")
            )
        packet = head / body
        match number % 10:
            case 7:
                packet[scapy.UDP].len = rnd.choice([0, 7, 9, 65535])
            case 8:
                packet[scapy.UDP].chksum = rnd.randrange(1, 65536)
            case 9:
                packet[scapy.IP].flags, packet[scapy.IP].frag = rnd.choice([(1, 0), (0, 100), (1, 8189)])
        sent.append(bytes(packet))
    before = counted(deployment)
    with bystander(deployment):
        send_packets(outsider, sent)
    assert counted(deployment) > before + 100


def test_garbage_on_the_edges_tcp_port(deployment: Deployment, outsider: Host) -> None:
    """No TLS, half of it, and TLS with nonsense inside; many at once, some of which never say a word."""
    rnd = random.Random(4)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    hello = ssl.MemoryBIO()
    half = context.wrap_bio(ssl.MemoryBIO(), hello)
    with suppress(ssl.SSLWantReadError):
        half.do_handshake()
    first = hello.read()
    fds = Path(f"/proc/{deployment.daemons['edge'].pid}/fd")
    before = len(list(fds.iterdir()))
    with bystander(deployment), ExitStack() as stack:
        with outsider.network():
            for _ in range(300):
                stack.enter_context(socket.create_connection(EDGE, apps.PATIENCE))
        assert len(list(fds.iterdir())) <= before + UNPROVED_SOURCE + 8, "those of one source are bounded"
        for number in range(120):
            with outsider.network():
                sock = socket.create_connection(EDGE, apps.PATIENCE)
            with sock, suppress(OSError):
                sent = [
                    rnd.randbytes(500),
                    first[: rnd.randrange(len(first))],
                    b"GET / HTTP/1.1\r\n\r\n",
                    first + rnd.randbytes(99),
                ]
                sock.sendall(sent[number % 4])
        for data in (b"\xff\xff\xff\xff", bytes(4), rnd.randbytes(5000)):
            with outsider.network():
                sock = socket.create_connection(EDGE, apps.PATIENCE)
            with sock, suppress(OSError), context.wrap_socket(sock) as inside:
                inside.sendall(data)
                inside.settimeout(1)
                inside.recv(1000)
    assert deployment.daemons["connector"].running and not deployment.daemons["edge"].output().count("Traceback")


def test_a_stray_gets_at_most_one_hint_no_larger_than_itself(deployment: Deployment, outsider: Host) -> None:
    circuits = [tunnel["circuit"] for tunnel in deployment.status()["tunnels"]]
    assert circuits
    headers = [hostile_agent.frames.header(bytes.fromhex(circuit)) for circuit in circuits]
    with (
        bystander(deployment),
        sniffed(deployment.connector) as there,
        sniffed(deployment.laptop) as here,
        outsider.network(),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(0.15)
        for size in (8, 9, 10, 100, 1200):
            sent = (headers[0] + hostile_agent.MARK * 100)[:size]
            sock.sendto(sent, EDGE)
            answers = []
            while True:
                try:
                    answers.append(sock.recv(2000))
                except TimeoutError:
                    break
            assert len(answers) <= 1 and all(len(answer) <= size for answer in answers)
            assert bool(answers) == (size >= 9)
        for _ in range(1000):
            sock.sendto(headers[0] + hostile_agent.MARK, EDGE)
        answers = []
        while True:
            try:
                answers.append(sock.recv(2000))
            except TimeoutError:
                break
        assert len(answers) <= 40, "hints are budgeted"
    assert not any(hostile_agent.MARK in packet for packet in [*there, *here])


# --- on the TUN


def test_anything_on_the_tun(deployment: Deployment) -> None:
    """Packets that no kernel would make, put onto the device itself (to a closed port: no flow of theirs stays)."""
    rnd = random.Random(3)
    packets = []
    ends = {"src": "192.168.77.10", "dst": "10.10.0.10"}
    for number in range(1500):
        inner = rnd.choice(
            [
                lambda: scapy.TCP(
                    sport=rnd.randrange(65536), dport=9, flags=rnd.randrange(512), dataofs=rnd.randrange(16)
                ),
                lambda: scapy.UDP(sport=rnd.randrange(65536), dport=7777, len=rnd.choice([0, 3, 8, 500, 65535])),
                lambda: scapy.ICMP(type=rnd.randrange(256), code=rnd.randrange(256)),
                lambda: scapy.fuzz(scapy.TCP(sport=rnd.randrange(40_000, 42_000), dport=9)),
                lambda: scapy.fuzz(scapy.UDP(dport=53)),
            ]
        )()
        packet = (
            scapy.IP(**ends, proto=inner.overload_fields[scapy.IP]["proto"])
            / inner
            / rnd.randbytes(rnd.choice([0, 8, 900]))
        )
        match number % 6:
            case 0:
                packet[scapy.IP].ihl = rnd.randrange(16)
            case 1:
                packet[scapy.IP].len = rnd.choice([0, 19, 20, 21, 65535])
            case 2:
                packet[scapy.IP].flags, packet[scapy.IP].frag = rnd.randrange(8), rnd.randrange(8192)
            case 3:
                packet[scapy.IP].dst = rnd.choice(
                    ["224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1", "100.80.0.2"]
                )
            case 4:
                packet[scapy.IP].version = rnd.randrange(16)
        whole = bytes(packet)
        packets.append(whole[: rnd.randrange(1, len(whole) + 1)] if number % 7 == 0 else whole)
    before = deployment.status()["counters"]
    with bystander(deployment):
        with deployment.laptop.network():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        with sock:
            for number, packet in enumerate(packets):
                try:
                    sock.sendto(packet, ("warren0", 0x0800))
                except OSError:
                    continue
                if number % 50 == 0:
                    time.sleep(0.01)
        ping = deployment.laptop.run(["ping", "-c", "2", "-i", "0.2", "-W", "5", "10.10.0.10"]).stdout
        assert "2 received" in ping
    after = deployment.status()["counters"]
    dropped = {word for word in after if word.startswith("dropped_") and after[word] > before.get(word, 0)}
    assert {"dropped_malformed", "dropped_multicast"} <= dropped, dropped


# --- an enrolled device

ENDED = {"frames": 9, "control": 8, "streams": 6, "credit": 2, "attachment": 6, "session": 6, "stranger": 6}
"""How many of its connections at least are ended for what it said on them; in other attacks, none is."""


@pytest.mark.parametrize(
    "attacks",
    [
        ["frames", "control", "streams", "credit", "datagrams", "packets", "foreign"],
        ["attachment", "session", "stranger"],
    ],
    ids=["in-peer-connections", "at-the-edge"],
)
def test_an_enrolled_device(deployment: Deployment, outsider: Host, attacks: list[str]) -> None:
    assert deployment.laptop.run(["ping", "-c", "1", "-W", "5", "10.10.0.10"]).returncode == 0
    circuits = [tunnel["circuit"] for tunnel in deployment.status()["tunnels"]]
    with bystander(deployment), sniffed(deployment.connector) as there, sniffed(deployment.laptop) as here:
        found = run_attacks(outsider, attacks, circuits)
    for attack, said in found.items():
        ended = [reason for reason in said["ended"] if reason]
        assert len(ended) >= ENDED.get(attack, 0), (attack, said)
        assert attack in ENDED or not ended, (attack, said)
        assert said["again"], f"no other connection of the same device works after {attack}"
    assert list(found) == attacks
    assert not any(hostile_agent.MARK in packet for packet in [*there, *here])
    assert [tunnel["circuit"] for tunnel in deployment.status()["tunnels"]] == circuits
