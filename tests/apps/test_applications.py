"""Applications that have to be installed: a desktop, a share, a shell over UDP, a message bus; all by name."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import apps
from tests.lab.thread.test_apps import digest_of, put
from warren.lab import wait_until
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.services import Services

MIB = 1 << 20
PATIENCE = 60.0
KEPT = Path(__file__).parents[2] / "build" / "apps"
"""Where the screenshot is kept, for people to look at."""


@pytest.fixture(scope="module")
def payroll(deployment: Deployment) -> Host:
    return deployment.lab["payroll"]


@pytest.fixture(scope="module")
def laptop(deployment: Deployment, services: Services) -> Host:
    services.ssh.give_to(deployment.laptop, "payroll.internal")
    return deployment.laptop


# --- a desktop: xfreerdp on the laptop, xrdp in front of an X server in the office

RDP_PORT, SIZE = 3389, (800, 600)
DESK = """
[desk]
name=desk
lib=libvnc.so
username=
password=
ip=127.0.0.1
port=5910
"""
SHOWN = "for i in 1 2 3 4 5 6 7 8 9; do printf '\\033[4%dmPayroll, page %d\\n' $((i % 8)) $i; done; sleep 600"


@pytest.fixture
def desktop(payroll: Host) -> Iterator[None]:
    """A terminal with coloured lines on an X server, which xrdp shows."""
    size = f"{SIZE[0]}x{SIZE[1]}"
    vnc = [
        "Xtigervnc",
        ":10",
        "-rfbport",
        "5910",
        "-SecurityTypes",
        "None",
        "-localhost",
        "-geometry",
        size,
        "-depth",
        "24",
    ]
    packaged = payroll.read("/etc/xrdp/xrdp.ini").split("[Xorg]")[0]
    payroll.write("/etc/xrdp-lab.ini", re.sub("^autorun=.*", "autorun=desk", packaged, flags=re.MULTILINE) + DESK)
    payroll.run(["mkdir", "-p", "/run/xrdp", "/tmp/.X11-unix"])
    with payroll.start(vnc) as server:
        payroll.wait_for_listener(5910, server)
        terminal = ["xterm", "-display", ":10", "-geometry", "60x25+20+20", "-bg", "darkblue", "-e", "sh", "-c", SHOWN]
        with payroll.start(terminal), payroll.start(["xrdp", "--nodaemon", "--config", "/etc/xrdp-lab.ini"]) as xrdp:
            payroll.wait_for_listener(RDP_PORT, xrdp)
            yield


def test_a_desktop_over_rdp(laptop: Host, payroll: Host, desktop: None) -> None:
    laptop.run(["mkdir", "-p", "/tmp/.X11-unix", "/tmp/screen"])
    screen = ["Xvfb", ":7", "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "-fbdir", "/tmp/screen"]
    client = ["xfreerdp", "/v:payroll.internal", f"/size:{SIZE[0]}x{SIZE[1]}", "/cert-ignore", "/u:ann", "/p:x"]
    with laptop.start(screen) as xvfb:
        wait_until(lambda: laptop.path("/tmp/.X11-unix/X7").exists(), "the laptop's X server", PATIENCE)
        assert xvfb.running
        with laptop.start(client, env={"DISPLAY": ":7"}) as viewer:
            try:
                wait_until(
                    lambda: len(colours(laptop)) >= 6 or not viewer.running, "the desktop on the screen", PATIENCE
                )
            finally:
                keep(laptop)
            log = payroll.path("/var/log/xrdp.log")
            assert viewer.running, viewer.tail() + (log.read_text()[-4000:] if log.exists() else "")
            found = colours(laptop)
    assert len(found) >= 6 and max(found.values()) < 0.95 * SIZE[0] * SIZE[1], "the screenshot is not blank"
    assert KEPT.joinpath("desktop.png").stat().st_size > 1000


def pixels(host: Host) -> tuple[int, int, bytes]:
    """Width, height and RGB of the screen, out of Xvfb's frame buffer (X11's XWD format, version 7)."""
    data = host.path("/tmp/screen/Xvfb_screen0").read_bytes()
    fields = struct.unpack_from(">25I", data)
    header, width, height, line, entries = fields[0], fields[4], fields[5], fields[12], fields[19]
    start = header + entries * 12
    rows = [data[start + row * line : start + row * line + width * 4] for row in range(height)]
    if fields[7] == 0:  # least significant byte first: B, G, R, unused
        rgb = bytearray(width * height * 3)
        joined = b"".join(rows)
        rgb[0::3], rgb[1::3], rgb[2::3] = joined[2::4], joined[1::4], joined[0::4]
        return width, height, bytes(rgb)
    raise AssertionError("a frame buffer of another byte order")


def colours(host: Host) -> dict[bytes, int]:
    """How many pixels have each colour, of those with a hundred at least."""
    _, _, rgb = pixels(host)
    counts: dict[bytes, int] = {}
    for at in range(0, len(rgb), 3):
        colour = rgb[at : at + 3]
        counts[colour] = counts.get(colour, 0) + 1
    return {colour: count for colour, count in counts.items() if count >= 100}


def keep(host: Host) -> None:
    """The screen as PNG (RFC 2083)."""
    width, height, rgb = pixels(host)
    lines = b"".join(b"\0" + rgb[row * width * 3 : (row + 1) * width * 3] for row in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    KEPT.mkdir(parents=True, exist_ok=True)
    KEPT.joinpath("desktop.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


# --- a share

SAMBA = """
[global]
server role = standalone server
map to guest = Bad User
guest account = root
server min protocol = SMB3
smb ports = 445
disable netbios = yes
load printers = no
log file = /var/log/samba/log
[files]
path = /srv-files
read only = no
guest ok = yes
"""


@pytest.fixture
def share(payroll: Host) -> Iterator[Process]:
    payroll.write("/etc/samba-lab.conf", SAMBA.replace("/srv-files", "/var/lib/files"))
    payroll.run(["mkdir", "-p", "/var/lib/files", "/var/lib/samba/private", "/var/log/samba", "/run/samba"])
    argv = ["smbd", "--foreground", "--no-process-group", "--debug-stdout", "-s", "/etc/samba-lab.conf"]
    with payroll.start(argv) as server:
        payroll.wait_for_listener(445, server)
        yield server


def test_files_on_a_share(laptop: Host, payroll: Host, share: Process) -> None:
    client = ["smbclient", "-N", "-m", "SMB3", "//payroll.internal/files", "-c"]
    digest = put(laptop, "/tmp/sent", 50 * MIB, 11)
    laptop.run([*client, "put /tmp/sent large; mkdir folder; put /tmp/sent folder/again"], timeout=300)
    assert digest_of(payroll, "/var/lib/files/large") == digest
    laptop.run([*client, "get large /tmp/back"], timeout=300)
    assert digest_of(laptop, "/tmp/back") == digest
    listed = laptop.run([*client, "recurse; ls"], timeout=60).stdout
    assert re.search(rf"again\s+A\s+{50 * MIB}", listed)
    laptop.run([*client, "rename large other; rm folder\\again; rmdir folder"], timeout=60)
    assert [file.name for file in payroll.path("/var/lib/files").iterdir()] == ["other"]


# --- a shell over UDP that outlives its network

MOSH = """
import os, pty, re, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    mosh = "stty rows 25 cols 80; exec mosh --predict=never root@payroll.internal -- sh"
    os.execvp("sh", ["sh", "-c", mosh])
seen = b""
def until(pattern, seconds=40):
    global seen
    end = time.monotonic() + seconds
    while not re.search(pattern, seen):
        if time.monotonic() > end:
            sys.exit(f"no {pattern!r} in {seen[-2000:]!r}")
        if select.select([fd], [], [], 0.2)[0]:
            try:
                seen += os.read(fd, 65536)
            except OSError:
                sys.exit(f"over: {seen[-2000:]!r}")
until(rb"[#$] ")
os.write(fd, b"echo $((6 * 7)) on $(hostname)\\n")
until(rb"42 on payroll")
print("first", flush=True)
sys.stdin.readline()
os.write(fd, b"echo $((7 * 8)) still here\\n")
until(rb"56 still here")
os.write(fd, b"seq 1000 3000\\n")
until(rb"3000")
os.write(fd, b"exit\\n")
os.waitpid(pid, 0)
print("done", flush=True)
"""


def test_a_shell_over_mosh(laptop: Host, payroll: Host) -> None:
    said = laptop.run(["python3", "-c", MOSH], input="\n", timeout=120, env={"LC_ALL": "C.UTF-8"}).stdout
    assert said.split() == ["first", "done"]


# --- a message bus: one connection for everything, for long

NATS = """
import asyncio, sys
COUNT, SUBJECTS = int(sys.argv[1]), 40
async def connect():
    reader, writer = await asyncio.open_connection("payroll.internal", 4222)
    assert (await reader.readline()).startswith(b"INFO ")
    writer.write(b'CONNECT {"verbose":false,"name":"lab"}\\r\\n')
    return reader, writer
async def main():
    (sub, says), (pub, publishes) = await connect(), await connect()
    says.write(b"SUB work.> 1\\r\\nPING\\r\\n")
    while await sub.readline() != b"PONG\\r\\n":
        pass
    pings, last, got = 0, {}, 0
    async def publish(begin, end):
        for number in range(begin, end):
            body = b"%d " % number + b"x" * (number % 1500)
            publishes.write(b"PUB work.%d %d\\r\\n" % (number % SUBJECTS, len(body)) + body + b"\\r\\n")
            if number % 100 == 0:
                await publishes.drain()
        await publishes.drain()
    async def receive(end):
        nonlocal pings, got
        while got < end:
            line = await sub.readline()
            if line == b"PING\\r\\n":
                pings += 1
                says.write(b"PONG\\r\\n")
                continue
            _, subject, _, size = line.split()
            body = await sub.readexactly(int(size) + 2)
            number = int(body.split()[0])
            assert body[:-2] == b"%d " % number + b"x" * (number % 1500) and number > last.get(subject, -1), line
            last[subject], got = number, got + 1
    async def answer():  # the publisher's side: the server pings it, too
        while line := await pub.readline():
            if line == b"PING\\r\\n":
                publishes.write(b"PONG\\r\\n")
    answering = asyncio.create_task(answer())
    await asyncio.gather(publish(0, COUNT), receive(COUNT))
    half = asyncio.create_task(receive(2 * COUNT))
    while pings < 8:  # idle but for the server's pings
        await asyncio.sleep(0.1)
    await asyncio.gather(publish(COUNT, 2 * COUNT), half)
    answering.cancel()
    print(got, pings)
asyncio.run(asyncio.wait_for(main(), 100))
"""


def test_a_message_bus(laptop: Host, payroll: Host) -> None:
    payroll.write("/etc/nats-lab.conf", 'ping_interval: "1s"\nping_max: 5\n')
    with payroll.start(["nats-server", "-a", payroll.address, "-p", "4222", "-c", "/etc/nats-lab.conf"]) as server:
        payroll.wait_for_listener(4222, server)
        got, pings = map(int, laptop.python(NATS, "20000", timeout=120).stdout.split())
    assert got == 40_000 and pings >= 8


# --- a ninth flow beside eight that stand still

SPEED_SHARE = 0.8
ROUNDS = 3


def test_a_flow_beside_readers_that_stand_still_keeps_its_speed(
    deployment: Deployment, laptop: Host, payroll: Host
) -> None:
    """In one run, by turns: alone, and beside eight flows each way whose readers do not read."""
    import statistics
    import time

    from tests.lab.thread.test_credit import FAST, standing, until_nothing_moves

    data = apps.pattern(64 * MIB)

    def speed() -> float:
        began = time.monotonic()
        with apps.connected(laptop, payroll.address, port) as client:
            assert len(apps.read_all(client)) == len(data)
        return len(data) / (time.monotonic() - began)

    alone, beside = list[float](), list[float]()
    with apps.origin(payroll, lambda sock: sock.sendall(data)) as port:
        speed()
        for _ in range(ROUNDS):
            alone.append(speed())
            with standing(laptop, payroll, FAST):
                until_nothing_moves(deployment)
                beside.append(speed())
    share = statistics.median(beside) / statistics.median(alone)
    print(f"beside eight that stand still: {share:.0%} of {statistics.median(alone) * 8 / 1e9:.2f} Gbit/s")
    assert share >= SPEED_SHARE, (alone, beside)
