"""The whole path in the lab, one TCP stream each way, beside two bare aioquic cores in the same run.

    python -m tests.bench.path [seconds] [rounds] [--write]        (as root; `make bench`)

For each round: bare cores (processor time of sender and receiver counted apart, 1444-byte datagrams), then iperf3 from
the laptop to the office, up and down, with the processor time of each daemon, then bare cores again, then iperf3 on
the bare path (connector → origin). Medians; --write puts the table into docs/benchmarks.md and the JSON beside it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.bench.engine import bare
from warren.lab import Lab
from warren.lab.deployment import Deployment
from warren.lab.host import Host
from warren.lab.process import Process
from warren.lab.services import start_services

BARE_BYTES = 40 << 20
TARGET = 0.75
"""Share of the slower bare core that each way has to reach."""
DOCS = Path(__file__).resolve().parents[2] / "docs"
TICK = os.sysconf("SC_CLK_TCK")


def processor(process: Process) -> float:
    """Seconds of processor time that a daemon has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def stream(host: Host, seconds: int, *options: str) -> float:
    """One iperf3 stream to the origin; Gbit/s received."""
    words = ["iperf3", "-c", "10.10.0.10", "-J", "-t", str(seconds), "-O", "1", *options]
    said = json.loads(host.run(words, timeout=seconds + 30).stdout)
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


def cores() -> dict[str, float]:
    """Gbit/s per core of the bare library, as sender and as receiver."""
    cost = bare(BARE_BYTES, stock=True)
    return {"send": cost.delivered * 8e-9 / cost.sender, "receive": cost.delivered * 8e-9 / cost.receiver}


def measure(seconds: int, rounds: int) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    with Lab() as lab:
        start_services(lab)
        deployment = Deployment(lab)
        deployment.up()
        for _ in range(rounds):
            before, one = cores(), dict[str, Any]()
            for name, options in (("up", ()), ("down", ("-R",))):
                spent = {role: processor(daemon) for role, daemon in deployment.daemons.items()}
                rate = stream(lab["laptop"], seconds, *options)
                total = {role: processor(deployment.daemons[role]) - at for role, at in spent.items()}
                one[name] = rate
                one[f"{name}_core_s_per_gbit"] = {r: t / (rate * (seconds + 1)) for r, t in total.items()}
            after = cores()
            one["cores"] = {way: (before[way] + after[way]) / 2 for way in before}
            one["direct"] = stream(lab["connector"], min(seconds, 3))
            found.append(one)
    return {"rounds": found, "seconds": seconds, "medians": medians(found), "machine": machine()}


def medians(found: list[dict[str, Any]]) -> dict[str, Any]:
    def of(*keys: str) -> float:
        values = []
        for one in found:
            value: Any = one
            for key in keys:
                value = value[key]
            values.append(float(value))
        return statistics.median(values)

    slower = [min(one["cores"].values()) for one in found]
    return {
        "up": of("up"),
        "down": of("down"),
        "direct": of("direct"),
        "core_send": of("cores", "send"),
        "core_receive": of("cores", "receive"),
        "up_share": statistics.median(one["up"] / low for one, low in zip(found, slower, strict=True)),
        "down_share": statistics.median(one["down"] / low for one, low in zip(found, slower, strict=True)),
        **{
            f"{way}_{role}": of(f"{way}_core_s_per_gbit", role)
            for way in ("up", "down")
            for role in ("agent", "edge", "connector")
        },
    }


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return f"{len(models)} cores, {models[0] if models else platform.machine()}, Linux {platform.release()}"


def table(said: dict[str, Any]) -> str:
    m = said["medians"]
    lines = [
        "| one TCP stream, on aioquic | Gbit/s | of the slower bare core | agent, edge, connector: core·s per Gbit |",
        "|---|---|---|---|",
    ]
    for way, text in (("up", "laptop → origin"), ("down", "origin → laptop")):
        spent = ", ".join(f"{m[f'{way}_{role}']:.2f}" for role in ("agent", "edge", "connector"))
        lines.append(f"| {text} | {m[way]:.2f} | {m[f'{way}_share']:.0%} (to reach: {TARGET:.0%}) | {spent} |")
    lines.append(f"| bare aioquic core, send / receive | {m['core_send']:.2f} / {m['core_receive']:.2f} | | |")
    lines.append(f"| bare path, connector → origin | {m['direct']:.1f} | | |")
    return "\n".join(lines)


def write(said: dict[str, Any]) -> None:
    text = (
        "# Benchmarks\n\n`make bench` makes this page. Machines differ by a factor of two: only ratios within one run "
        "mean anything.\n\n"
        f"Medians of {len(said['rounds'])} rounds of {said['seconds']} s; {said['machine']}.\n\n{table(said)}\n"
    )
    (DOCS / "benchmarks.md").write_text(text)
    (DOCS / "benchmarks.json").write_text(json.dumps(said, indent=1) + "\n")


def main(arguments: list[str]) -> None:
    numbers = [int(word) for word in arguments if word.isdigit()]
    said = measure(*(numbers + [6, 3][len(numbers) :]))
    print(table(said))
    if "--write" in arguments:
        write(said)


if __name__ == "__main__":
    main(sys.argv[1:])
