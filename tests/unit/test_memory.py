"""docs/memory.md names every bound, and none that is not there any more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("agent", "connector", "dnsfilter", "edge", "fabric")
DOCUMENT = (ROOT / "docs" / "memory.md").read_text()
BOUND = re.compile(r"[A-Z][A-Z_]*_(MAX|LIMIT|MAX_BYTES)|MAX_[A-Z_]+")
NO_MEMORY = {
    *("LABEL_MAX", "NAME_MAX", "MAX_NAME", "TTL_MAX"),  # of DNS itself
    *("CIDR_LIMIT", "COUNTER_LIMIT", "OFFSET_LIMIT", "PORT_LIMIT", "PATH_LIMIT"),  # of values
    *("MAX_UDP_PAYLOAD", "MAX_PREFIX"),
}
"""Limits of a value, which hold nothing."""


def constants() -> Iterator[tuple[str, str]]:
    """(file, name) of every constant of a module or a class."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text())
            bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
            for node in (node for body in bodies for node in body):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                for target in targets if isinstance(node, ast.Assign | ast.AnnAssign) else ():
                    for name in target.elts if isinstance(target, ast.Tuple) else (target,):
                        if isinstance(name, ast.Name):
                            yield str(path.relative_to(ROOT)), name.id


def test_every_bound_is_in_the_document() -> None:
    bounds = {(file, name) for file, name in constants() if BOUND.fullmatch(name) and name not in NO_MEMORY}
    assert len(bounds) > 40
    assert {(file, name) for file, name in bounds if f"`{name}`" not in DOCUMENT} == set()


def test_what_the_document_names_is_there() -> None:
    names = {name for _, name in constants()}
    named = set(re.findall(r"`(_?[A-Z][A-Z_]{2,})`", DOCUMENT))
    assert named - names == set()
