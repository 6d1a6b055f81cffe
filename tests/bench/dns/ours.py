"""Warren's resolver, as `warren dns run` starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from tests.bench.dns.loads import delays, loads, memory, processor
from tests.bench.dns.world import (
    CORES,
    HTTPS,
    METRICS,
    SERVERS,
    TLS,
    UDP,
    UPSTREAM,
    World,
    ask,
    connected,
    pin,
    wait_until_it_says,
)
from warren.fabric.core import dnswire as wire

RULES: Final = 200
SWAP_WITHIN: Final = 120.0
STEADY: Final = 1000
"""Queries in the two seconds before the swap that its delays are compared with."""


def measure(world: World, seconds: int, rounds: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "warren.dnsfilter.cli", "run", "-c", str(_config(world))]
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_says(process, world.names["blocked"][-1], UDP, wire.NXDOMAIN)
        made: dict[str, Any] = {
            "load_s": round(time.monotonic() - started, 2),
            "resident_mib": memory(process.pid),
            "load_peak_mib": memory(process.pid, "VmHWM"),
        }
        delays(world.names["cached"])
        made["swap"] = _swap(world, process.pid)
        pin(process.pid, SERVERS)
        made["delay_ms"] = {"forwarded": delays(world.fresh)}
        made["delay_ms"] |= {kind: delays(world.names[kind][:2000]) for kind in ("cached", "blocked", "once")}
        made |= loads(world, process.pid, ("udp", "dot", "doh"), seconds, rounds)
        made["resident_after_mib"] = memory(process.pid)
        made["seen"] = _seen(world)
    finally:
        process.terminate()
        process.wait()
    return made


def _config(world: World) -> Path:
    rules = "\n".join(
        f'    - {{name: r{n}, action: block, who: {{devices: [d{n}]}}, names: ["*.n{n}.test.example"]}}'
        for n in range(RULES - 1)
    )
    pair = f"certificate: {world.directory}/cert.pem, key: {world.directory}/key.pem"
    path = world.directory / "dns.yaml"
    path.write_text(f"""
listen: ["127.0.0.1:{UDP}"]
tls: {{listen: ["127.0.0.1:{TLS}"], {pair}}}
https: {{listen: ["127.0.0.1:{HTTPS}"], {pair}}}
metrics: "127.0.0.1:{METRICS}"
upstreams: ["127.0.0.1:{UPSTREAM}"]
state: {world.directory}/state
lists: [{{name: ads, source: {world.directory}/big.txt}}]
policy:
  rules:
{rules}
    - {{name: ads, action: block, categories: [ads]}}
limit: {{per_second: 10000000, burst: 10000000}}
log: {{enabled: true}}
""")
    return path


def _swap(world: World, pid: int) -> dict[str, float]:
    """A list of the same size with one name more takes the place of the old one, under a query every 2 ms; on all
    cores, as the set is built by a process beside the resolver."""
    pin(pid, CORES)
    name = world.names["cached"][0]
    steady = delays([name] * STEADY, gap=0.002)
    with (world.directory / "big.txt").open("a") as file:
        file.write("||new.swapped.example^\n")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the high-water mark starts anew
    started, before, resident = time.monotonic(), processor(pid), memory(pid)
    os.kill(pid, signal.SIGHUP)
    longest = 0.0
    with connected(UDP, 5.0) as udp:
        while ask(udp, 0, "new.swapped.example")[1] != wire.NXDOMAIN:
            if time.monotonic() - started > SWAP_WITHIN:
                raise RuntimeError("the new set does not come")
            longest = max(longest, delays([name] * 50, gap=0.002)["max"])
    peak = memory(pid, "VmHWM")
    return {
        "seconds": round(time.monotonic() - started, 2),
        "processor_s": round(processor(pid) - before, 2),
        "max_ms": longest,
        "steady_max_ms": steady["max"],
        "before_mib": resident,
        "peak_mib": peak,
        "peak_share": round(peak / resident, 2),
    }


def _seen(world: World) -> dict[str, float]:
    """That log and metrics were on: bytes of the log, queries that the metrics know."""
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics") as response:
        text = response.read().decode()
    known = re.findall(r"^warren_dns_queries_total\{[^}]*\} ([\d.e+]+)", text, re.MULTILINE)
    files = (world.directory / "state").glob("queries.jsonl*")
    return {
        "log_mib": round(sum(file.stat().st_size for file in files) / (1 << 20), 1),
        "queries": sum(map(float, known)),
    }
