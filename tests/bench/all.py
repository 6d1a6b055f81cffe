"""The whole benchmark: paths, bad link, profiles, engines, and the resolver on a page of its own.

    python -m tests.bench.all [--quick] [--write] [--only NAME,…] [--rounds N]          (as root; `make bench`)

--only: parts (paths, bad-link, controllers, profiles, engines, dns) and peers by the start of their names (warren,
wireguard-go, "bare path"), which leaves out the others. --write: docs/benchmarks.md and .json,
docs/benchmarks-dns.md and .json; otherwise the pages are printed only.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from tests.bench import badlink, controllers, engines, path, profile, report
from tests.bench.dns import measuring as dns
from tests.bench.dns import page
from tests.bench.machine import machine
from tests.bench.peers import PEERS, Peer, WarrenNative
from tests.bench.settings import QUICK, Settings, tell

PARTS = ("paths", "bad-link", "controllers", "profiles", "engines", "dns")


def main(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("the benchmark needs namespaces: run it as root", file=sys.stderr)
        return 2
    settings = QUICK if given.quick else Settings()
    if given.rounds:
        settings = replace(settings, rounds=given.rounds)
    parts, peers = chosen(given.only)
    if not parts or not peers:
        print(f"--only knows {', '.join(PARTS)} and {', '.join(peer.name for peer in PEERS)}", file=sys.stderr)
        return 2
    if parts != ("dns",):
        said = measure(settings, parts, peers)
        print(report.page(said))
        if given.write:
            report.write(said)
    if "dns" in parts:
        names = dns.measure(quick=given.quick)
        print(page.page(names))
        if given.write:
            page.write(names)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.all", description="The whole benchmark.")
    parser.add_argument("--quick", action="store_true", help="a second each, once: does every row work?")
    parser.add_argument("--write", action="store_true", help="write the pages below docs/, and their JSON")
    parser.add_argument("--only", default="", help="parts and peers, with commas between them")
    parser.add_argument("--rounds", type=int, help="figures are the medians of so many")
    return parser


def chosen(only: str) -> tuple[tuple[str, ...], tuple[type[Peer], ...]]:
    """The parts and peers that `--only` names; without a part all of those that have peers, or everything."""
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    parts = tuple(part for part in PARTS if part in words)
    names = [word for word in words if word not in PARTS]
    peers = tuple(peer for peer in PEERS if any(peer.name.lower().startswith(name) for name in names))
    if not all(any(peer.name.lower().startswith(name) for peer in PEERS) for name in names):
        return (), ()
    return parts or (PARTS[:4] if names else PARTS), peers or PEERS


def measure(settings: Settings, parts: tuple[str, ...], peers: tuple[type[Peer], ...]) -> dict[str, Any]:
    """Plain values for the page and the JSON."""
    said: dict[str, Any] = {"machine": machine(), "settings": asdict(settings)}
    if "paths" in parts:
        said["paths"] = path.measure(peers, settings)
    if "bad-link" in parts:
        said["bad_link"] = badlink.measure(settings, peers)
    if "controllers" in parts:
        said["controllers"] = controllers.measure(settings, peers)
    if "profiles" in parts:
        said["profiles"] = [
            path.guarded(kind.name, partial(profile.measure, kind, settings))
            for kind in peers
            if issubclass(kind, WarrenNative)
        ]
    if "engines" in parts:
        tell("engines alone")
        said["engines"] = [*(engines.measure(name) for name in engines.NAMES), engines.bare_library()]
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
