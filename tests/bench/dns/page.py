"""docs/benchmarks-dns.md and .json: every figure comes from the run, none is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.bench.dns.loads import KINDS
from tests.bench.figures import NONE, get, less, table, written

DOCS: Final = Path(__file__).resolve().parents[3] / "docs"
INTRODUCTION: Final = """# Benchmarks of the resolver

`python -m tests.bench.dns --write` makes this page, and `benchmarks-dns.json` beside it, in one run; no figure is typed
by hand. Machines differ by a factor of two and more: only ratios within one run mean anything.

All over loopback. A server has one core for itself, with all its threads; dnsperf and the upstream (which gives every
name the same address) have the others. 200 queries are in flight over UDP and HTTPS, 400 over TLS, on 4 sockets or
connections; over HTTPS it is one name again and again, and h2load that asks. *Blocked* and *cached* are 5,000 names
each, asked for in turn; *once* are names below listed ones, each asked for once (of up to 300,000), so that nothing
that was said before helps. Warren has 200 policy rules, query log, metrics and the limit of each client on; the others
know no clients, and their logs are off.
"""
MODES: Final = {"udp": "UDP", "dot": "TLS", "doh": "HTTPS"}


def page(said: dict[str, Any]) -> str:
    its = said["machine"]
    quick = " **A quick run: every row works, the figures say little.**" if said["rounds"] < 3 else ""
    machine = (
        f"{its['cores']} cores, {its['processor']}, {its['kernel']}, Python {its['python']}; load {said['load']} "
        f"before. Medians of rounds of {said['seconds']} s ({said['rounds']}).{quick}\n"
    )
    largest = said["sizes"][-1]
    parts = [INTRODUCTION, machine, "## What is asked for\n", table(VERDICTS, verdicts(largest)), ""]
    for size in reversed(said["sizes"]):
        parts += [f"## {size['entries']:,} names on the list\n", *_size(size)]
    parts += ["## How figures grow\n", _growth(said["sizes"]), ""]
    versions = [f"* {one['name']}: {one['version']}" for one in _others(largest) if "version" in one]
    parts += ["## Versions\n", f"* Warren: {said['version']}", *versions]
    parts += [f"* {one['name']}: not measured: {one['missing']}" for one in _others(largest) if "missing" in one]
    parts += [
        f"* {one['name']}, {size['entries']:,} names: failed: {one['failed']}"
        for size in said["sizes"]
        for one in _others(size)
        if "failed" in one
    ]
    return "\n".join(parts).rstrip() + "\n"


def write(said: dict[str, Any]) -> None:
    (DOCS / "benchmarks-dns.md").write_text(page(said))
    (DOCS / "benchmarks-dns.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


VERDICTS: Final = ["asked for, with as many names as the largest list has", "figure", "limit", "reached"]


def verdicts(size: dict[str, Any]) -> list[list[str]]:
    """Rows of `VERDICTS`."""
    its, rows = size["warren"], []
    for kind in KINDS:
        rate = get(its, "udp", kind, "per_second")
        rows.append(_verdict(f"queries a second on one core, UDP, {kind}", rate, 100_000, 0, most=False))
        each = get(its, "udp", kind, "microseconds_of_processor_each")
        rows.append(_verdict(f"processor time of each, UDP, {kind}, µs", each, 10, 2))
    resident = max(its[key] for key in ("resident_mib", "resident_after_mib"))
    rows.append(_verdict("resident, MiB", resident, 256, 0))
    rows.append(_verdict("load, s", its["load_s"], 10, 1))
    rows.append(_verdict("resident at most while a new set is swapped in, × before", its["swap"]["peak_share"], 1.5, 2))
    rows.append(_verdict("longest delay of a query during the swap, ms", its["swap"]["max_ms"], 20, 1))
    return rows


def _verdict(text: str, figure: float | None, limit: float, digits: int, *, most: bool = True) -> list[str]:
    if figure is None:
        return [text, NONE, "", "not measured"]
    reached = figure <= limit if most else figure >= limit
    sign = "≤" if most else "≥"
    return [text, f"{figure:,.{digits}f}", f"{sign} {limit:,g}", "yes" if reached else "**no**"]


def _size(size: dict[str, Any]) -> list[str]:
    everybody = [{"name": "Warren", **size["warren"]}, *(one for one in _others(size) if "udp" in one)]
    direct, swap = size["direct_ms"], size["warren"]["swap"]
    forwarded = [
        *("cached, p50 / p99", "blocked", "once"),
        "forwarded, beyond the upstream's own",
    ]
    parts = [
        _rows(
            ["queries a second, one core, UDP", *KINDS], everybody, lambda one: _rates(one, "udp", KINDS, "per_second")
        ),
        _rows(["processor time each, µs, UDP", *KINDS], everybody, lambda one: _rates(one, "udp", KINDS, MICROSECONDS)),
    ]
    encrypted = [one for one in everybody if "dot" in one]
    pairs = [(mode, kind) for mode in ("dot", "doh") for kind in KINDS[:2]]
    if encrypted and size["encrypted"]:
        head = ["queries a second, one core", *(f"{MODES[mode]}, {kind}" for mode, kind in pairs)]
        parts.append(_rows(head, encrypted, lambda one: [_rate(one, mode, kind, "per_second") for mode, kind in pairs]))
    parts.append(_rows(["one query at a time, ms", *forwarded], everybody, lambda one: _delays(one, direct)))
    parts.append(
        _rows(["", "load, s", "resident, MiB", "after all loads"], everybody, lambda one: [_load(one), *_memory(one)])
    )
    parts.append(
        f"The upstream itself takes {direct['p50']} ms, p99 {direct['p99']} ms. A new set of the same size is swapped "
        f"in within {swap['seconds']} s ({swap['processor_s']} s of them the resolver's own processor time), under a "
        f"query every 2 ms: the longest took {swap['max_ms']} ms ({swap['steady_max_ms']} ms in the two seconds "
        f"before), {swap['before_mib']} MiB became {swap['peak_mib']} at most.\n"
    )
    return parts


MICROSECONDS: Final = "microseconds_of_processor_each"


def _others(size: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = size["others"]
    return found


def _rows(head: list[str], everybody: list[dict[str, Any]], row: Callable[[dict[str, Any]], list[str]]) -> str:
    return table(head, [[one["name"], *row(one)] for one in everybody]) + "\n"


def _rates(one: dict[str, Any], mode: str, kinds: tuple[str, ...], key: str) -> list[str]:
    return [_rate(one, mode, kind, key) for kind in kinds]


def _rate(one: dict[str, Any], mode: str, kind: str, key: str) -> str:
    figure = get(one, mode, kind, key)
    if figure is None:
        return NONE
    lost = get(one, mode, kind, "lost")
    text = written(figure, 1) if key == MICROSECONDS else f"{figure:,.0f}"
    return text + (f" ({lost:.0f} lost)" if lost and key != MICROSECONDS else "")


def _delays(one: dict[str, Any], direct: dict[str, float]) -> list[str]:
    own = [
        f"{written(get(one, 'delay_ms', kind, 'p50'))} / {written(get(one, 'delay_ms', kind, 'p99'))}"
        for kind in ("cached", "blocked", "once")
    ]
    beyond = [written(less(get(one, "delay_ms", "forwarded", key), get(direct, key))) for key in ("p50", "p99")]
    return [*own, " / ".join(beyond)]


def _load(one: dict[str, Any]) -> str:
    return written(get(one, "load_s"), 1)


def _memory(one: dict[str, Any]) -> list[str]:
    return [written(get(one, key), 0) for key in ("resident_mib", "resident_after_mib")]


GROWTH: Final = (
    ("queries a second, UDP, blocked", ("udp", "blocked", "per_second"), 0),
    ("queries a second, UDP, cached", ("udp", "cached", "per_second"), 0),
    ("queries a second, UDP, once", ("udp", "once", "per_second"), 0),
    ("processor time each, blocked, µs", ("udp", "blocked", MICROSECONDS), 1),
    ("processor time each, once, µs", ("udp", "once", MICROSECONDS), 1),
    ("one at a time, once, p50, ms", ("delay_ms", "once", "p50"), 3),
    ("load, s", ("load_s",), 1),
    ("resident, MiB", ("resident_mib",), 0),
)


def _growth(sizes: list[dict[str, Any]]) -> str:
    names = ["Warren", *(one["name"] for one in _others(sizes[-1]) if "udp" in one)]
    rows = []
    for name in names:
        for text, keys, digits in GROWTH:
            figures = [get(_of(size, name), *keys) for size in sizes]
            rows.append([name, text, *(NONE if figure is None else f"{figure:,.{digits}f}" for figure in figures)])
    return table(["", "", *(f"{size['entries']:,}" for size in sizes)], rows)


def _of(size: dict[str, Any], name: str) -> Any:
    if name == "Warren":
        return size["warren"]
    return next((one for one in _others(size) if one["name"] == name), {})
