"""Arrows point down only, every core is pure, and daemons load no more than they need."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("agent", "cli", "connector", "dnsfilter", "edge", "fabric")
MAY_IMPORT = {
    "cli": {"cli", "agent", "connector", "edge", "dnsfilter", "fabric"},
    "agent": {"agent", "fabric"},
    "connector": {"connector", "fabric"},
    "edge": {"edge", "dnsfilter", "fabric"},
    "dnsfilter": {"dnsfilter", "fabric"},
    "fabric": {"fabric"},
}
FABRIC_MAY_IMPORT = {
    "core": {"core"},
    "identity": {"identity", "core"},
    "engines": {"engines", "identity", "core"},
    "aio": {"aio", "engines", "identity", "core"},
    "daemon": {"daemon", "aio", "identity", "core"},
}
DNSFILTER_SHELL_MAY_IMPORT = {"core", "aio", "daemon"}
"""Of fabric. Its core knows fabric.core only; the shell also sets up logs, and serves /ready and /metrics."""
IMPURE = {
    "asyncio",
    "socket",
    "ssl",
    "time",
    "random",
    "os",
    "secrets",
    "threading",
    "subprocess",
    "selectors",
    "signal",
}


def modules(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it; not what is for the type checker alone."""
    found = set[str]()
    for node in ast.walk(without_type_checking(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def without_type_checking(tree: ast.Module) -> ast.Module:
    class Without(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node

    return ast.fix_missing_locations(Without().visit(tree))  # type: ignore[no-any-return]


def rooms_of(path: Path) -> set[tuple[str, ...]]:
    """What it imports of ours: ("fabric", "core", "frames"), …"""
    return {tuple(name.split(".")[1:]) for name in imported(path) if name.startswith("warren.")}


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_between_rooms_point_down(room: str) -> None:
    wrong = {(place(path), ".".join(name)) for path in modules(room) for name in rooms_of(path) if name[0] in ROOMS
             and name[0] not in MAY_IMPORT[room]}  # fmt: skip
    assert wrong == set()


@pytest.mark.parametrize("part", FABRIC_MAY_IMPORT)
def test_arrows_within_fabric_point_down(part: str) -> None:
    names = {(place(path), name) for path in modules(f"fabric/{part}") for name in rooms_of(path)}
    wrong = {(where, name) for where, name in names if len(name) > 1 and name[1] not in FABRIC_MAY_IMPORT[part]}
    assert wrong == set()


def test_dnsfilter_knows_the_core_of_fabric_only() -> None:
    for path in modules("dnsfilter"):
        allowed = {"core"} if "core" in path.relative_to(ROOT).parts[:-1] else DNSFILTER_SHELL_MAY_IMPORT
        wrong = {name for name in rooms_of(path) if name[0] == "fabric" and len(name) > 1 and name[1] not in allowed}
        assert wrong == set(), place(path)


def test_every_core_is_pure() -> None:
    cores = [path for path in modules(*ROOMS) if "core" in path.relative_to(ROOT).parts[:-1]]
    assert len(cores) > 20
    wrong = {(place(path), name) for path in cores for name in imported(path) if name.partition(".")[0] in IMPURE}
    assert wrong == set()


def test_only_the_engine_adapters_know_a_quic_library() -> None:
    knowing = {place(path) for path in modules(*ROOMS) for name in imported(path) if name.startswith("aioquic")}
    assert knowing
    assert {where for where in knowing if not where.startswith("fabric/engines/")} == set()


def test_no_daemon_knows_the_lab_or_scapy() -> None:
    wrong = {(place(path), name) for path in modules(*ROOMS) for name in imported(path)
             if name.startswith(("scapy", "warren.lab", "tests", "pytest"))}  # fmt: skip
    assert wrong == set()


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("warren.agent.app", ["fastapi", "sqlalchemy", "alembic", "granian", "warren.edge", "warren.connector"]),
        ("warren.connector.app", ["fastapi", "sqlalchemy", "pyroute2", "warren.edge", "warren.agent"]),
        ("warren.edge.app", ["pyroute2", "scapy", "warren.agent", "warren.connector"]),
        ("warren.cli.main", ["fastapi", "sqlalchemy", "aioquic", "pyroute2", "cryptography"]),
    ],
)
def test_a_daemon_loads_no_more_than_it_needs(module: str, strangers: list[str]) -> None:
    program = f"import sys, {module}\nprint(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert set(loaded.stdout.split()) & set(strangers) == set()
