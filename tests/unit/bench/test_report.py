"""The page and its verdicts, out of figures that were never measured."""

from __future__ import annotations

from typing import Any

from tests.bench import report
from tests.bench.all import PARTS, chosen
from tests.bench.figures import medians
from tests.bench.peers import PEERS, WarrenNative
from tests.bench.profile import divided, ours_and_engine, part_of, shares
from tests.bench.verdicts import verdicts

MACHINE = {"cores": 2, "processor": "one", "kernel": "Linux 6", "python": "3.11", "encrypts": {"AES-128-GCM": 20.0}}


def path(
    name: str, gbit: float, spent: float, p99: float = 5.0, core: float | None = None, **more: Any
) -> dict[str, Any]:
    stream = {"gbit": gbit, "processor": {"laptop": spent / 2, "hub": spent / 4, "site": spent / 4}}
    loaded = {"p50": 1.0, "p99": p99, "lost": 0.0}
    rounds = [
        {
            **{f"one_{way}": stream for way in ("up", "down")},
            **{f"eight_{way}": gbit for way in ("up", "down")},
            **{f"loaded_{way}": loaded for way in ("up", "down")},
            **{f"core_{way}": core for way in ("up", "down") if core},
            "round_trip": {"p50": 0.3, "p99": 0.9},
            "connections": {"per_second": 500.0, "failed": 0},
        }
    ]
    memory = {"laptop": 60.0, "hub": 80.0, "site": 40.0}
    shown = {"name": name, "path": "somehow", "version": "1", "missing": None, "notes": [], "memory": memory}
    return {**shown, "udp": {"gbit": 0.5, "lost": 0.001}, "rounds": rounds, "medians": medians(rounds), **more}


def run(**parts: Any) -> dict[str, Any]:
    return {"machine": MACHINE, "settings": {"rounds": 3, "one": 2, "controllers": 3}, **parts}


def passed(said: dict[str, Any], start: str) -> list[bool | None]:
    return [one.passed for one in verdicts(said) if one.what.startswith(start)]


def test_twice_as_fast_for_less_than_half_passes() -> None:
    said = run(paths=[path("Warren native", 2.1, 0.6), path("wireguard-go", 1.0, 1.5)])
    assert passed(said, "one TCP stream") == [True, True]
    assert passed(said, "processor time") == [True, True]
    assert passed(said, "UDP round trip") == [True, True]


def test_too_slow_too_dear_too_late() -> None:
    said = run(paths=[path("Warren native", 1.9, 0.7, p99=21.0), path("wireguard-go", 1.0, 1.5)])
    assert passed(said, "one TCP stream") == [False, False]
    assert passed(said, "processor time") == [False, False]
    assert passed(said, "UDP round trip") == [False, False]


def test_debians_wireguard_go_is_to_be_left_further_behind() -> None:
    debians = path("wireguard-go", 1.0, 1.5, version="0.0.20220316-1 (Debian)")
    assert passed(run(paths=[path("Warren native", 3.9, 0.6), debians]), "one TCP stream") == [False, False]
    assert passed(run(paths=[path("Warren native", 4.0, 0.6), debians]), "one TCP stream") == [True, True]


def test_what_was_not_measured_is_no_verdict() -> None:
    missing = {"name": "wireguard-go", "missing": "this machine has no Go"}
    said = run(paths=[path("Warren native", 2.1, 0.6), missing])
    assert passed(said, "one TCP stream") == [None, None]
    assert passed(run(), "bad link") == [None, None]
    assert "not measured: this machine has no Go" in report.page(said)


def test_the_page_holds_every_part() -> None:
    case = {"name": "Warren native, own controller", "missing": None, "medians": {"up": 91.0, "down": 79.0}}
    daemon = divided({"warren.agent.capture.tun:read": 1, "warren.fabric.engines.native:receive": 3}, 0.4)
    engine = {"name": "aioquic, bare library", "missing": None, "stream": {"send": 0.5, "receive": 0.4}}
    said = run(
        paths=[path("bare path", 20.0, 0.0), path("Warren aioquic", 0.31, 4.0, core=0.4)],
        bad_link=[{**case, "emulator": 0.1}],
        controllers=[{**case, "links": {"1 % lost": {"rate": 91.23, "dropped": 0.012}}}],
        profiles=[{"name": "Warren native", "missing": None, "up": {"laptop": daemon}, "down": {"laptop": daemon}}],
        engines=[engine, {"name": "native", "missing": "not installed"}],
    )
    page = report.page(said)
    headings = [
        "What is asked for",
        "The whole path",
        "A bad link",
        "Controllers on one link",
        "Where the processor time goes",
        "Engines",
    ]
    assert all(f"## {heading}" in page for heading in headings)
    assert "| – | 91.2 (1.2%) | – |" in page
    assert "0.00 / 0.00" in page  # nothing added to the bare path's round trip
    assert passed(said, "bad link") == [True, False]
    assert passed(said, "whole path on aioquic") == [True, True]
    assert passed(said, "Warren native: TUN") == [True, True]


def test_samples_are_divided_among_the_parts() -> None:
    assert [part_of(f"warren.{name}:f") for name in ("edge.switch.forward", "fabric.aio.pump", "agent.app")] == [
        "switch",
        "pump",
        "other",
    ]
    samples = {"warren.fabric.aio.pump:_send": 1, "warren.fabric.engines.native:read": 2, "warren.agent.tcp:f": 1}
    way = {"laptop": divided(samples, 2.0), "hub": divided({"warren.edge.switch.forward:send": 7}, 2.0)}
    assert way["laptop"]["parts"] == {"pump": 0.5, "engine": 1.0, "other": 0.5}
    assert shares(way) == {"switch": 0.5, "pump": 0.125, "engine": 0.25, "other": 0.125}
    assert ours_and_engine(way) == (0.625, 0.25)


def test_only_what_is_asked_for() -> None:
    assert chosen("") == (PARTS, PEERS)
    assert chosen("engines") == (("engines",), PEERS)
    parts, peers = chosen("warren,wireguard-go")
    assert parts == PARTS[:4]
    assert {peer.name for peer in peers} == {"Warren native", "Warren aioquic", "wireguard-go"}
    assert WarrenNative in chosen("profiles,warren")[1]
    assert chosen("profiles,warren n") == (("profiles",), (WarrenNative,))
    assert chosen("nobody") == ((), ())
