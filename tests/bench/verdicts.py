"""What is asked of Warren's speed, and whether a run has shown it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from tests.bench import profile
from tests.bench.figures import NONE, get, percent, ratio, table, total, written
from tests.bench.peers import WarrenAioquic, WarrenNative, WireguardGo

FASTER, FASTER_THAN_DEBIANS = 2.0, 4.0
"""Times wireguard-go's speed through a hub: of its current release, and of Debian's, which is older."""
CHEAPER = 0.45
"""Share of wireguard-go's processor time per Gbit."""
UNDER_LOAD = 20.0
"""Milliseconds: p99 of UDP's round trip while TCP saturates the path."""
OF_BARE_CORE = 0.75
"""Share of a bare aioquic core that the whole path on aioquic carries."""
BAD_LINK = 80.0
"""Mbit/s of 100 that Warren carries where 1 % is lost at 50 ms."""
BAD_LINK_CASE = "Warren native, own controller"
WAYS = {"up": "laptop → origin", "down": "origin → laptop"}


class Verdict(NamedTuple):
    """`passed` is None where the run has no figure for it."""

    what: str
    figure: str
    asked: str
    passed: bool | None


def verdicts(said: dict[str, Any]) -> list[Verdict]:
    """Of everything that a run has measured."""
    paths = {one["name"]: one for one in said.get("paths", [])}
    native = paths.get(WarrenNative.name, {})
    wireguard = paths.get(WireguardGo.name, {})
    found = [*_against_wireguard(native, wireguard), *_under_load(native)]
    found += _bad_link(said.get("bad_link", []))
    found += _profile(said.get("profiles", []))
    found += _of_bare_core(paths.get(WarrenAioquic.name, {}))
    return found


def _judge(value: float | None, enough: Callable[[float], bool]) -> bool | None:
    return None if value is None else enough(value)


Figure = Callable[[dict[str, Any]], float | None]


def _round_by_round(
    one: dict[str, Any], other: dict[str, Any], figure: Figure, of_the_other: Figure | None = None
) -> float | None:
    """The median of what each round has found: the two took turns, and the machine is not as fast in every round."""
    pairs = zip(one.get("rounds", []), other.get("rounds", []), strict=False)
    shares = (ratio(figure(mine), (of_the_other or figure)(theirs)) for mine, theirs in pairs)
    found = [share for share in shares if share is not None]
    return statistics.median(found) if found else None


def _rate(key: str, made: dict[str, Any]) -> float | None:
    return get(made, key, "gbit")


def _spent(key: str, made: dict[str, Any]) -> float | None:
    return total((made.get(key) or {}).get("processor"))


def _core(way: str, made: dict[str, Any]) -> float | None:
    return get(made, f"core_{way}")


def _against_wireguard(native: dict[str, Any], wireguard: dict[str, Any]) -> list[Verdict]:
    times = FASTER_THAN_DEBIANS if "Debian" in wireguard.get("version", "") else FASTER
    made = []
    for way, words in WAYS.items():
        faster = _round_by_round(native, wireguard, partial(_rate, f"one_{way}"))
        what = f"one TCP stream, {words}, beside wireguard-go"
        made.append(Verdict(what, written(faster, 2, " ×"), f"≥ {times:g} ×", _judge(faster, lambda it: it >= times)))
    for way, words in WAYS.items():
        share = _round_by_round(native, wireguard, partial(_spent, f"one_{way}"))
        what = f"processor time per Gbit of all daemons, {words}, beside wireguard-go"
        made.append(Verdict(what, written(share), f"≤ {CHEAPER}", _judge(share, lambda it: it <= CHEAPER)))
    return made


def _under_load(native: dict[str, Any]) -> list[Verdict]:
    made = []
    for way, words in WAYS.items():
        slow = get(native, "medians", f"loaded_{way}", "p99")
        what = f"UDP round trip p99 while TCP saturates the path, {words}"
        asked = f"≤ {UNDER_LOAD:g} ms"
        made.append(Verdict(what, written(slow, 1, " ms"), asked, _judge(slow, lambda it: it <= UNDER_LOAD)))
    return made


def _bad_link(cases: list[dict[str, Any]]) -> list[Verdict]:
    case = next((one for one in cases if one["name"] == BAD_LINK_CASE), {})
    made = []
    for way, words in WAYS.items():
        rate = get(case, "medians", way)
        what = f"bad link (50 ms, 1 % lost, 100 Mbit/s), one TCP stream, {words}"
        asked = f"≥ {BAD_LINK:g} Mbit/s"
        made.append(Verdict(what, written(rate, 0, " Mbit/s"), asked, _judge(rate, lambda it: it >= BAD_LINK)))
    return made


def _profile(profiles: list[dict[str, Any]]) -> list[Verdict]:
    made = []
    for one in profiles:
        for way, words in WAYS.items():
            what = f"{one['name']}: TUN, switch and pump together, beside the engine, {words}"
            if way not in one:
                made.append(Verdict(what, NONE, "less", None))
                continue
            ours, engine = profile.ours_and_engine(one[way])
            made.append(Verdict(what, f"{percent(ours)} and {percent(engine)}", "less", ours < engine))
    return made


def _of_bare_core(aioquic: dict[str, Any]) -> list[Verdict]:
    made = []
    for way, words in WAYS.items():
        share = _round_by_round(aioquic, aioquic, partial(_rate, f"one_{way}"), partial(_core, way))
        what = f"whole path on aioquic, {words}, beside the slower side of a bare core"
        asked = f"≥ {OF_BARE_CORE:.0%}"
        made.append(Verdict(what, percent(share), asked, _judge(share, lambda it: it >= OF_BARE_CORE)))
    return made


def rows(found: list[Verdict]) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    head = ["asked for", "figure", "limit", "reached"]
    return table(head, [[one.what, one.figure, one.asked, words[one.passed]] for one in found])
