"""The resolver alone, over loopback, with dnsperf and h2load, and others beside it in the same run.

    python -m tests.bench.dns [entries ...] [--seconds=4] [--alone]        (10000 1000000 shows how figures grow)

A list of a million names (or as many as told), 200 policy rules, query log, metrics and rate limit on; one process for
the server, dnsperf and the upstream on what is left. For each size: load time and memory; one query at a time
(forwarded, cached, blocked: p50, p99); queries a second over UDP, TLS and HTTPS, with the processor time of each; a
new set of the same size swapped in under a query every 2 ms. Beside it, with the same names and upstream, where they
are installed: dnsmasq, Unbound, dnsdist, blocky. None of them knows clients or logs queries here. Prints JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.loopback.dnsfilter.certificates import make_certificate
from tests.loopback.dnsfilter.upstream import FakeUpstream, address
from warren.fabric.core import dnswire as wire

CACHED_NAMES = 5000
UDP, TLS, HTTPS, METRICS, OTHER = 15353, 15354, 15355, 15356, 15357
READY_WITHIN = 180.0


def listed(number: int) -> str:
    return f"n{number % 1000}.tracker{number // 1000}.example"


def write_list(path: Path, entries: int) -> None:
    with path.open("w") as file:
        file.writelines(f"||{listed(number)}^\n" for number in range(entries))


def write_config(directory: Path, upstream: int) -> Path:
    rules = "\n".join(
        f'    - {{name: r{n}, action: block, who: {{devices: [d{n}]}}, names: ["*.n{n}.test.example"]}}'
        for n in range(199)
    )
    pair = f"certificate: {directory}/cert.pem, key: {directory}/key.pem"
    path = directory / "dns.yaml"
    path.write_text(f"""
listen: ["127.0.0.1:{UDP}"]
tls: {{listen: ["127.0.0.1:{TLS}"], {pair}}}
https: {{listen: ["127.0.0.1:{HTTPS}"], {pair}}}
metrics: "127.0.0.1:{METRICS}"
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


def memory(pid: int, key: str) -> int:
    """MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) >> 10
    return 0


def processor(pid: int) -> float:
    """Seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def dnsperf(directory: Path, pid: int, names: list[str], seconds: int, mode: str, port: int) -> dict[str, float]:
    """As many queries as are answered: 800 in flight over UDP, 400 on 4 connections over TLS."""
    queries = directory / "queries.txt"
    queries.write_text("".join(f"{name} A\n" for name in names))
    words = ["dnsperf", "-m", mode, "-s", "127.0.0.1", "-p", str(port), "-d", str(queries), "-l", str(seconds)]
    words += ["-c", "4", "-q", "800" if mode == "udp" else "400", "-e"]
    before, started = processor(pid), time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output = (await process.communicate())[0].decode()
    busy, elapsed = processor(pid) - before, time.monotonic() - started
    completed = int(re.findall(r"Queries completed:\s+(\d+)", output)[0])
    return {
        "per_second": round(float(re.findall(r"Queries per second:\s+([\d.]+)", output)[0])),
        "microseconds_of_processor_each": round(busy / max(completed, 1) * 1e6, 2),
        "server_busy": round(busy / elapsed, 2),
        "lost": int(re.findall(r"Queries lost:\s+(\d+)", output)[0]),
    }


async def h2load(directory: Path, pid: int, name: str, seconds: int) -> dict[str, float]:
    """DNS over HTTPS: one name again and again, as h2load sends one body only; 200 in flight on 4 connections."""
    body = directory / "query.bin"
    body.write_bytes(wire.build_query(0, wire.name_wire(name), wire.A))
    words = ["h2load", "-D", str(seconds), "-c", "4", "-m", "50", "-d", str(body)]
    words += ["-H", "content-type: application/dns-message", f"https://127.0.0.1:{HTTPS}/dns-query"]
    before = processor(pid)
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    done = int(re.findall(r"(\d+) 2xx", output)[0])
    return {
        "per_second": round(done / seconds),
        "microseconds_of_processor_each": round((processor(pid) - before) / max(done, 1) * 1e6, 2),
        "failed": int(re.findall(r"(\d+) failed", output)[0]),
    }


async def latencies(names: list[str], gap: float, port: int = UDP) -> dict[str, float]:
    """One query at a time, `gap` seconds apart."""
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


async def answering(process: asyncio.subprocess.Process, name: str, port: int) -> None:
    """Wait until it answers."""
    deadline = time.monotonic() + READY_WITHIN
    while process.returncode is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await latencies([name], 0, port)
                return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"it does not answer on port {port}")


async def swap(directory: Path, pid: int, name: str) -> dict[str, float]:
    """A list of the same size with one name more takes the place of the old one, under a query every 2 ms."""
    with (directory / "big.txt").open("a") as file:
        file.write("||new.swapped.example^\n")
    with open(f"/proc/{pid}/clear_refs", "w") as file:  # noqa: ASYNC230 - the high-water mark starts anew
        file.write("5")
    before, resident, started = processor(pid), memory(pid, "VmRSS"), time.monotonic()
    state, wall = directory / "state" / "lists" / "ads.json", time.time()
    os.kill(pid, signal.SIGHUP)
    took: list[float] = []
    while state.stat().st_mtime < wall:
        took.append((await latencies([name] * 50, 0.002))["max_ms"])
    peak = memory(pid, "VmHWM")
    return {
        "seconds": round(time.monotonic() - started, 2),
        "processor_s": round(processor(pid) - before, 2),
        "max_ms": max(took),
        "before_mib": resident,
        "peak_mib": peak,
        "peak_share": round(peak / resident, 2),
    }


# ------------------------------------------------------------------------------------------------------------ beside it


def dnsmasq(directory: Path, entries: int, upstream: int) -> list[str]:
    with (directory / "dnsmasq.conf").open("w") as out:
        out.write(f"port={OTHER}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\ncache-size=10000\n")
        out.write(f"user=root\npid-file=\nserver=127.0.0.1#{upstream}\ndns-forward-max=1000\n")
        out.writelines(f"local=/{listed(number)}/\n" for number in range(entries))
    return ["dnsmasq", "--keep-in-foreground", f"--conf-file={directory}/dnsmasq.conf"]


def unbound(directory: Path, entries: int, upstream: int) -> list[str]:
    with (directory / "unbound.conf").open("w") as out:
        out.write(
            f'server:\n interface: 127.0.0.1@{OTHER}\n port: {OTHER}\n num-threads: 1\n username: ""\n chroot: ""\n'
        )
        out.write(f' directory: "{directory}"\n pidfile: ""\n use-syslog: no\n module-config: "iterator"\n')
        out.write(" do-not-query-localhost: no\n msg-cache-size: 16m\n rrset-cache-size: 32m\n")
        out.writelines(f' local-zone: "{listed(number)}" always_nxdomain\n' for number in range(entries))
        out.write(f'forward-zone:\n name: "."\n forward-addr: 127.0.0.1@{upstream}\n')
    return ["unbound", "-d", "-c", f"{directory}/unbound.conf"]


def dnsdist(directory: Path, entries: int, upstream: int) -> list[str]:
    with (directory / "names.txt").open("w") as out:
        out.writelines(f"{listed(number)}\n" for number in range(entries))
    (directory / "dnsdist.conf").write_text(
        f'setLocal("127.0.0.1:{OTHER}")\nsetSecurityPollSuffix("")\nnewServer({{address="127.0.0.1:{upstream}", '
        f'healthCheckMode="up"}})\ngetPool(""):setCache(newPacketCache(10000))\nlocal known = newSuffixMatchNode()\n'
        f'for name in io.lines("{directory}/names.txt") do known:add(newDNSName(name)) end\n'
        "addAction(SuffixMatchNodeRule(known), RCodeAction(DNSRCode.NXDOMAIN))\n"
    )
    return ["dnsdist", "--supervised", "--disable-syslog", "-C", f"{directory}/dnsdist.conf"]


def blocky(directory: Path, entries: int, upstream: int) -> list[str]:
    with (directory / "wildcards.txt").open("w") as out:
        out.writelines(f"*.{listed(number)}\n" for number in range(entries))
    (directory / "blocky.yaml").write_text(
        f'upstreams: {{init: {{strategy: fast}}, groups: {{default: ["tcp+udp:127.0.0.1:{upstream}"]}}}}\n'
        f'ports: {{dns: "127.0.0.1:{OTHER}"}}\nlog: {{level: error}}\nblocking:\n  blockType: nxDomain\n'
        f'  denylists: {{ads: ["{directory}/wildcards.txt"]}}\n  clientGroupsBlock: {{default: [ads]}}\n'
    )
    return ["blocky", "--config", f"{directory}/blocky.yaml", "serve"]


OTHERS: dict[str, Callable[[Path, int, int], list[str]]] = {
    "dnsmasq": dnsmasq,
    "unbound": unbound,
    "dnsdist": dnsdist,
    "blocky": blocky,
}


async def beside(
    directory: Path, entries: int, upstream: int, names: dict[str, list[str]], seconds: int
) -> dict[str, object]:
    """The others that are installed, one after another."""
    found: dict[str, object] = {}
    for name, command in OTHERS.items():
        if shutil.which(name) is None:
            continue
        words, started = command(directory, entries, upstream), time.monotonic()
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
        try:
            await answering(process, names["cached"][0], OTHER)
            figures: dict[str, object] = {"load_s": round(time.monotonic() - started, 2)}
            await latencies(names["cached"], 0, OTHER)
            for kind, chosen in names.items():
                figures[f"{kind}_latency"] = await latencies(chosen[:2000], 0, OTHER)
                figures[kind] = await dnsperf(directory, process.pid, chosen, seconds, "udp", OTHER)
            figures["resident_mib"] = memory(process.pid, "VmRSS")
            found[name] = figures
        except (RuntimeError, TimeoutError) as error:
            found[name] = {"error": str(error)}
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return found


async def ours(
    directory: Path, config: Path, names: dict[str, list[str]], seconds: int, fresh: list[str]
) -> dict[str, object]:
    figures: dict[str, object] = {}
    started = time.monotonic()
    words = (sys.executable, "-m", "warren.dnsfilter.cli", "run", "-c", str(config))
    process = await asyncio.create_subprocess_exec(*words, stdout=sys.stderr)
    try:
        await answering(process, names["blocked"][0], UDP)
        figures["load_s"] = round(time.monotonic() - started, 2)
        figures["resident_mib"] = memory(process.pid, "VmRSS")
        figures["load_peak_mib"] = memory(process.pid, "VmHWM")
        figures["forwarded_latency"] = await latencies(fresh, 0)
        await latencies(names["cached"], 0)
        for kind, chosen in names.items():
            figures[f"{kind}_latency"] = await latencies(chosen[:2000], 0)
            for mode, port in (("udp", UDP), ("dot", TLS)):
                figures[f"{kind}_{mode}"] = await dnsperf(directory, process.pid, chosen, seconds, mode, port)
            if shutil.which("h2load") is not None:
                figures[f"{kind}_doh"] = await h2load(directory, process.pid, chosen[0], seconds)
        figures["swap"] = await swap(directory, process.pid, names["cached"][0])
        figures["resident_after_mib"] = memory(process.pid, "VmRSS")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    return figures


async def measure(entries: int, seconds: int, alone: bool) -> dict[str, Any]:
    figures: dict[str, Any] = {"entries": entries}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_list(directory / "big.txt", entries)
        make_certificate(directory)
        names = {
            "blocked": [f"x.{listed(n * (entries // CACHED_NAMES or 1) % entries)}" for n in range(CACHED_NAMES)],
            "cached": [f"www{n}.popular.example" for n in range(CACHED_NAMES)],
        }
        fresh = [f"new{n}.popular.example" for n in range(2000)]
        async with FakeUpstream(lambda q, _: address(q, ttl=3600)) as upstream:
            config = write_config(directory, upstream.port)
            figures["warren"] = await ours(directory, config, names, seconds, fresh)
            if not alone:
                figures |= await beside(directory, entries, upstream.port, names, seconds)
    return figures


def main(words: list[str]) -> None:
    sizes = [int(word) for word in words if word.isdigit()] or [1_000_000]
    seconds = next((int(word.partition("=")[2]) for word in words if word.startswith("--seconds=")), 4)
    found = [asyncio.run(measure(size, seconds, "--alone" in words)) for size in sizes]
    print(json.dumps({"load_average": os.getloadavg(), "sizes": found}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
