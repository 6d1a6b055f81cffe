"""Metrics as Prometheus reads them: its text format, version 0.0.4.

Labels are bounded: reasons, roles, edges of the network; never a name or an address that a user or a packet brought.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from warren import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, what it counts, and a value for each set of labels."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: tuple[tuple[Labels, float], ...]


def counter(name: str, help: str, value: float) -> Family:
    return Family(name, "counter", help, (({}, value),))


def gauge(name: str, help: str, value: float) -> Family:
    return Family(name, "gauge", help, (({}, value),))


def counted(name: str, help: str, label: str, values: Mapping[str, float]) -> Family:
    """A counter for each word."""
    return Family(name, "counter", help, tuple(({label: word}, value) for word, value in sorted(values.items())))


def text(families: Iterable[Family]) -> str:
    """The page that is scraped."""
    lines = list[str]()
    for family in families:
        lines += [f"# HELP {family.name} {_escaped(family.help)}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{_labels(labels)} {value}" for labels, value in family.samples]
    return "\n".join(lines) + "\n"


def process() -> list[Family]:
    """What every daemon tells of itself, under the names that dashboards know."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return [
        Family("warren_build_info", "gauge", "Always 1; the version is a label.", (({"version": __version__}, 1),)),
        counter("process_cpu_seconds_total", "Processor time used.", round(used.ru_utime + used.ru_stime, 3)),
        gauge("process_resident_memory_bytes", "Memory in use.", pages * os.sysconf("SC_PAGE_SIZE")),
        gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd"))),
    ]


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(value, quote=True)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str, *, quote: bool = False) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n")
    return value.replace('"', '\\"') if quote else value
