"""What is measured of a server: answers a second, processor time each, delays, memory."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.dns.world import CLIENTS, HTTPS, TLS, UDP, World, ask, connected
from tests.bench.figures import medians
from warren.fabric.core import dnswire as wire

PORTS: Final = {"udp": UDP, "dot": TLS}
IN_FLIGHT: Final = {"udp": 200, "dot": 400}
"""On 4 sockets or connections. More over UDP is more than the usual receive buffer of a server holds."""
ON_CLIENTS: Final = ("taskset", "-c", ",".join(map(str, CLIENTS)))
KINDS: Final = ("blocked", "cached", "once")


def memory(pid: int, key: str = "VmRSS") -> int:
    """MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) >> 10
    return 0


def processor(pid: int) -> float:
    """Seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loads(world: World, pid: int, modes: Sequence[str], seconds: int, rounds: int) -> dict[str, Any]:
    """Mode → kind → as many queries as are answered, the medians of the rounds. Names in turn were asked for before."""
    for mode in (mode for mode in modes if mode in PORTS):
        for kind in KINDS[:2]:
            _dnsperf(world, pid, kind, mode, ["-n", "1"])
    made: dict[str, Any] = {}
    for mode in modes:
        made[mode] = {}
        for kind in KINDS if mode == "udp" else KINDS[:2]:
            if mode == "doh":
                found = [_h2load(world, pid, kind, seconds) for _ in range(rounds)]
            else:
                found = [_dnsperf(world, pid, kind, mode, ["-l", str(seconds)]) for _ in range(rounds)]
            made[mode][kind] = medians(found)
    return made


def _dnsperf(world: World, pid: int, kind: str, mode: str, limit: Sequence[str]) -> dict[str, float]:
    words = [*ON_CLIENTS, "dnsperf", "-m", mode, "-s", "127.0.0.1", "-p", str(PORTS[mode]), *limit, "-t", "1"]
    words += ["-d", str(world.queries(kind)), "-c", "4", "-q", str(IN_FLIGHT[mode]), "-e"]
    before, started = processor(pid), time.monotonic()
    said = subprocess.run(words, capture_output=True, text=True).stdout
    spent, elapsed = processor(pid) - before, time.monotonic() - started
    completed = _figure(said, r"Queries completed:\s+(\d+)")
    rate, lost = _figure(said, r"Queries per second:\s+([\d.]+)"), _figure(said, r"Queries lost:\s+(\d+)")
    return _load(rate, completed, lost, spent, elapsed)


def _h2load(world: World, pid: int, kind: str, seconds: int) -> dict[str, float]:
    """dnsperf's own HTTP/2 stalls (2.10); h2load asks for one name again and again."""
    body = world.directory / "query.bin"
    body.write_bytes(wire.build_query(0, wire.name_wire(world.names[kind][0]), wire.A))
    words = [*ON_CLIENTS, "h2load", "-D", str(seconds), "-c", "4", "-m", "50", "-d", str(body)]
    words += ["-H", "content-type: application/dns-message", f"https://127.0.0.1:{HTTPS}/dns-query"]
    before, started = processor(pid), time.monotonic()
    said = subprocess.run(words, capture_output=True, text=True).stdout
    spent, elapsed = processor(pid) - before, time.monotonic() - started
    completed = _figure(said, r"(\d+) 2xx")
    return _load(completed / seconds, completed, _figure(said, r"(\d+) failed"), spent, elapsed)


def _load(rate: float, completed: float, lost: float, spent: float, elapsed: float) -> dict[str, float]:
    return {
        "per_second": round(rate),
        "microseconds_of_processor_each": round(spent / max(completed, 1) * 1e6, 2),
        "server_busy": round(spent / elapsed, 2),
        "lost": lost,
    }


def _figure(said: str, pattern: str) -> float:
    found = re.search(pattern, said)
    if found is None:
        raise RuntimeError("the load generator says nothing")
    return float(found[1])


def delays(names: Sequence[str], port: int = UDP, gap: float = 0.0) -> dict[str, float]:
    """One query at a time, `gap` seconds apart, in milliseconds."""
    took = []
    with connected(port, 5.0) as udp:
        for number, name in enumerate(names):
            took.append(ask(udp, number, name)[0])
            if gap:
                time.sleep(gap)
    took.sort()
    return {
        "p50": round(took[len(took) // 2], 3),
        "p99": round(took[len(took) * 99 // 100], 3),
        "max": round(took[-1], 3),
    }
