"""The topologies that come with the lab, each a YAML file beside this one with its drawing on top."""

from __future__ import annotations

from pathlib import Path

from warren.lab.topology_file import load

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))

OFFICE = load(FOLDER / "office.yaml")
"""A laptop at home, an edge on the internet, an office with its servers."""

IPV6 = load(FOLDER / "ipv6.yaml")
"""A laptop, an edge and a site that know nothing but IPv6."""

TWO_SITES = load(FOLDER / "two-sites.yaml")
"""The same with a branch that uses the office's addresses once more."""
