"""docs/soak-lab.md and .json: every figure comes from the run, none is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bench.figures import percent, table, written
from tests.lab.hour import memory

DOCS = Path(__file__).resolve().parents[3] / "docs"
STALLS_AT_MOST = 10.0
"""Seconds: more is a flow that hung."""
MOMENTS = ("start", "first", "last", "max")
INTRODUCTION = f"""# An hour in the lab

`make soak-lab` makes this page, and `soak-lab.json` beside it, in one run; no figure is typed by hand. Edge, connector
and agent run on the native engine, and the laptop's line is bad all the while: 1 to 3 % of the packets lost each way,
5 to 40 ms each way with jitter, 0.5 to 3 % out of order, up to 1 % twice. Every {{every:g}} seconds one thing changes:
all of that, the laptop's or the office's NAT (every connection gets another port), or the size that the path takes,
which shrinks to 1,400 or 1,280 bytes without a word to anybody, and grows again.

A TCP stream each way and UDP there and back last as long as the run; short flows (up to 200 kB each way) open, carry
and end beside them. Every byte is compared where it arrives, and a flow must end where it was ended. A *stall* is the
longest time in which a flow did not go on, its interval included; more than {STALLS_AT_MOST:g} s is a fault.

Memory is that of each process and its children (PSS); *own* is the part that is no file's, since the share of pages of
files changes with what other programs of the machine do. It is *flat* when the median of its own in the last
{memory.COMPARED / 60:g} minutes is at most {memory.GROWS_AT_MOST * 100:.0f} % and {memory.AND:g} MiB above *first*, the
median of the {memory.COMPARED / 60:g} minutes that follow the first {memory.SETTLES / 60:g} (shorter parts in a shorter
run).
"""


def faults(said: dict[str, Any]) -> list[str]:
    """What must not be; a line each."""
    found = []
    for name, its in said["apps"].items():
        found += [f"{name}: lost: {why}" for why in its["lost"]]
        if its["wrong"]:
            found.append(f"{name}: {its['wrong']} bytes wrong")
        if (its["stall"] or 0.0) > STALLS_AT_MOST:
            found.append(f"{name}: a stall of {its['stall']:.1f} s")
        if not its["bytes"]:
            found.append(f"{name}: carried nothing")
    found += [f"{role}: memory is not flat" for role, its in said["memory"].items() if not its["flat"]]
    found += [f"{log}: a fault in the log" for log in said["logs"]]
    return found


def page(said: dict[str, Any]) -> str:
    wrong = faults(said)
    verdict = "No fault." if not wrong else "**Faults:**\n\n" + "\n".join(f"* {line}" for line in wrong)
    return "\n".join(
        [
            INTRODUCTION.format(every=said["every"]),
            _ran(said),
            f"{verdict}\n",
            _apps(said["apps"]) + "\n",
            _memory(said["memory"]) + "\n",
            _changes(said["changes"]) + "\n",
        ]
    )


def write(said: dict[str, Any]) -> None:
    (DOCS / "soak-lab.md").write_text(page(said))
    (DOCS / "soak-lab.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def _ran(said: dict[str, Any]) -> str:
    its = said["machine"]
    return (
        f"{its['cores']} cores, {its['processor']}, {its['kernel']}, Python {its['python']}; {said['engine']}; "
        f"seed {said['seed']}; {said['seconds'] / 60:.0f} minutes, {sum(said['changes'].values())} changes. Of the "
        f"line's {said['line']['arrived']:,} packets {percent(said['line']['lost'], 1)} were lost on purpose. "
        f"Processor, of one core: daemons {percent(said['processor'])}, all with the emulator and the apps "
        f"{percent(said['everything'])}.\n"
    )


def _apps(apps: dict[str, Any]) -> str:
    rows = []
    for name, its in apps.items():
        packets = f"{its['missing']:,} of {its['sent']:,}" if its["sent"] else ""
        where = f"{written(its['stall'])} ({its['after']})"
        counts = [f"{its['flows']:,}", f"{its['bytes'] / 1e6:,.0f}", str(its["wrong"]), str(len(its["lost"]))]
        rows.append([name, *counts, where, packets])
    return table(["", "flows", "MB", "bytes wrong", "flows lost", "longest stall, s (after)", "unanswered"], rows)


def _memory(said: dict[str, Any]) -> str:
    rows = []
    for role, its in said.items():
        cells = [f"{written(its['held'][key], 1)}, {written(its['own'][key], 1)}" for key in MOMENTS]
        rows.append([role, *cells, "yes" if its["flat"] else "**no**"])
    return table(["MiB: all, own", *MOMENTS, "flat"], rows)


def _changes(counts: dict[str, int]) -> str:
    return table(["change", "times"], [[title, str(count)] for title, count in sorted(counts.items())])
