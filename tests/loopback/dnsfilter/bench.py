"""Figures of the resolver alone, over loopback, with dnsperf: `python -m tests.loopback.dnsfilter.bench [entries]`.

A list of a million names (or as many as told), 200 policy rules, query log and rate limit on; one process and so one
core for the server, dnsperf and the upstream on what is left; dnsmasq beside it where it is installed. Prints one JSON
object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.loopback.dnsfilter.upstream import FakeUpstream, address

SECONDS = 4
CACHED_NAMES = 5000


def _write_list(path: Path, entries: int) -> None:
    with path.open("w") as file:
        for number in range(entries):
            file.write(f"||n{number % 1000}.tracker{number // 1000}.example^\n")


def _write_config(directory: Path, upstream: int) -> Path:
    rules = "\n".join(
        f'    - {{name: r{n}, action: block, who: {{devices: [d{n}]}}, names: ["*.n{n}.test.example"]}}'
        for n in range(199)
    )
    path = directory / "dns.yaml"
    path.write_text(f"""
listen: ["127.0.0.1:15353"]
upstreams: ["127.0.0.1:{upstream}"]
state: {directory}/state
lists: [{{name: ads, source: {directory}/big.txt}}]
policy:
  rules:
{rules}
    - {{name: ads, action: block, categories: [ads]}}
limit: {{per_second: 10000000, burst: 10000000}}
log: {{enabled: true}}
""")
    return path


def _memory(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return 0.0


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _dnsperf(directory: Path, pid: int, names: list[str], port: int = 15353) -> dict[str, float]:
    queries = directory / "queries.txt"
    queries.write_text("".join(f"{name} A\n" for name in names))
    before, started = _processor(pid), time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(
            "dnsperf",
            "-s",
            "127.0.0.1",
            "-p",
            str(port),
            "-d",
            str(queries),
            "-l",
            str(SECONDS),
            "-c",
            "4",
            "-q",
            "200",
            "-e",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output = (await process.communicate())[0].decode()
    busy, elapsed = _processor(pid) - before, time.monotonic() - started
    completed = int(re.findall(r"Queries completed:\s+(\d+)", output)[0])
    rate = float(re.findall(r"Queries per second:\s+([\d.]+)", output)[0])
    return {
        "per_second": round(rate),
        "microseconds_of_processor_each": round(busy / completed * 1e6, 2),
        "server_busy": round(busy / elapsed, 2),
        "lost": int(re.findall(r"Queries lost:\s+(\d+)", output)[0]),
    }


async def _latencies(names: list[str], gap: float, port: int = 15353) -> dict[str, float]:
    """One query at a time, `gap` seconds apart."""
    import socket

    from warren.fabric.core import dnswire as wire

    loop, took = asyncio.get_running_loop(), []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        udp.connect(("127.0.0.1", port))
        for number, name in enumerate(names):
            query = wire.build_query(number & 0xFFFF, wire.name_wire(name), wire.A)
            started = time.perf_counter()
            udp.send(query)
            await loop.sock_recv(udp, 4096)
            took.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(gap)
    took.sort()
    return {
        "p50_ms": round(took[len(took) // 2], 3),
        "p99_ms": round(took[len(took) * 99 // 100], 3),
        "max_ms": round(took[-1], 3),
    }


async def _beside(directory: Path, upstream: int, names: dict[str, list[str]]) -> dict[str, object]:
    """dnsmasq with the same list and upstream, one process too; it logs nothing and knows no clients."""
    figures: dict[str, object] = {}
    with (directory / "dnsmasq.conf").open("w") as out, (directory / "big.txt").open() as file:
        out.write("port=15354\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\ncache-size=10000\n")
        out.write(f"user=root\npid-file=\nserver=127.0.0.1#{upstream}\ndns-forward-max=1000\n")
        out.writelines(f"local=/{line[2:-2]}/\n" for line in file)
    started = time.monotonic()
    command = ("dnsmasq", "--keep-in-foreground", f"--conf-file={directory}/dnsmasq.conf")
    process = await asyncio.create_subprocess_exec(*command)
    try:
        while not figures and process.returncode is None:
            with contextlib.suppress(OSError):
                await _latencies(names["cached"][:1], 0, 15354)
                figures["load_s"] = round(time.monotonic() - started, 2)
            await asyncio.sleep(0.05)
        await _latencies(names["cached"], 0, 15354)
        for kind, chosen in names.items():
            figures[kind] = await _dnsperf(directory, process.pid, chosen, 15354)
        figures["resident_mib"] = round(_memory(process.pid, "VmRSS"))
    finally:
        process.terminate()
        await process.wait()
    return figures


async def _swap(directory: Path, pid: int, name: str) -> dict[str, float]:
    """A list of the same size with one name more takes the place of the old one, under a query every 2 ms."""
    with (directory / "big.txt").open("a") as file:
        file.write("||new.swapped.example^\n")
    with open(f"/proc/{pid}/clear_refs", "w") as file:  # noqa: ASYNC230 - the high-water mark starts anew
        file.write("5")
    before, resident, started = _processor(pid), _memory(pid, "VmRSS"), time.monotonic()
    os.kill(pid, signal.SIGHUP)
    took: list[float] = []
    while (directory / "state" / "lists" / "ads.json").stat().st_mtime < time.time() - (time.monotonic() - started):
        took.append((await _latencies([name] * 50, 0.002))["max_ms"])
    return {
        "seconds": round(time.monotonic() - started, 2),
        "processor_s": round(_processor(pid) - before, 2),
        "max_ms": max(took),
        "before_mib": round(resident),
        "peak_mib": round(_memory(pid, "VmHWM")),
    }


async def main(entries: int) -> None:
    figures: dict[str, object] = {"entries": entries}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _write_list(directory / "big.txt", entries)
        async with FakeUpstream(lambda q, _: address(q, ttl=3600)) as upstream:
            config = _write_config(directory, upstream.port)
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "warren.dnsfilter.cli", "run", "-c", str(config)),
                stderr=asyncio.subprocess.PIPE,
            )
            assert process.stderr is not None
            try:
                while b"answering on" not in await process.stderr.readline():
                    pass
                figures["load_s"] = round(time.monotonic() - started, 2)
                figures["resident_mib"] = round(_memory(process.pid, "VmRSS"))
                figures["load_peak_mib"] = round(_memory(process.pid, "VmHWM"))
                blocked = [f"x.n{n % 1000}.tracker{n % max(1, entries // 1000)}.example" for n in range(CACHED_NAMES)]
                cached = [f"www{n}.popular.example" for n in range(CACHED_NAMES)]
                figures["forwarded"] = await _latencies(cached, 0)
                figures["cached_latency"] = await _latencies(cached[:2000], 0)
                figures["blocked_latency"] = await _latencies(blocked[:2000], 0)
                figures["cached"] = await _dnsperf(directory, process.pid, cached)
                figures["blocked"] = await _dnsperf(directory, process.pid, blocked)
                figures["swap"] = await _swap(directory, process.pid, cached[0])
                figures["resident_after_mib"] = round(_memory(process.pid, "VmRSS"))
            finally:
                process.terminate()
                await process.wait()
            if shutil.which("dnsmasq") is not None:
                figures["dnsmasq"] = await _beside(directory, upstream.port, {"cached": cached, "blocked": blocked})
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
