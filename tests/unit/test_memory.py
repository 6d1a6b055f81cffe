"""docs/memory.md names every bound, and none that is not there any more."""

from __future__ import annotations

import ast
import importlib
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


def rows() -> Iterator[tuple[str, list[str], str]]:
    """(name of a bound, the files that its row names, what the row says of its value)."""
    files: list[str] = []
    for line in DOCUMENT.splitlines():
        if line.startswith("| `"):
            bound, said, where = (cell.strip() for cell in line.strip("|").split("|")[:3])
            files = files if "the same" in where else re.findall(r"`([\w/*]+(?:\.py|/))`", where)
            yield from ((name, files, said) for name in re.findall(r"`(_?[A-Z][A-Z_]{2,})`", bound))


def spellings(value: object) -> Iterator[str]:
    match value:
        case tuple():
            for part in value:
                yield from spellings(part)
        case float() if value != int(value):
            yield str(value)
        case int() | float():
            yield f"{int(value):,}"
            for unit, name in ((1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB")):
                if value % unit == 0:
                    yield f"{int(value) // unit} {name}"


def test_what_the_document_says_of_a_bound_is_its_value() -> None:
    """In the file that its row names, as a number, in KiB or in MiB."""
    everywhere, wrong = list(constants()), []
    for name, files, said in rows():
        found = [file for file, known in everywhere if known == name]
        values = [value_of(file, name) for file in found if any(part.strip("*") in file for part in files)]
        values = [value for value in values or map(value_of, found, [name] * len(found)) if number(value)]
        texts = {text for value in values for text in spellings(value)}
        if values and not any(re.search(rf"(?<![\d,.]){re.escape(text)}(?!,?\d)", said) for text in texts):
            wrong.append((name, values, said))
    assert wrong == []


def value_of(file: str, name: str) -> object:
    module = importlib.import_module("warren." + file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    places = [module, *(thing for thing in vars(module).values() if isinstance(thing, type))]
    return next(vars(place)[name] for place in places if name in vars(place))


def number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, tuple) and bool(value) and all(map(number, value)))


def sums() -> Iterator[tuple[str, list[str], float]]:
    """(what, its terms, what they come to in MiB) of `    what:  one 20 + other 8 = 28 MiB`, in one line or several."""
    for block in re.findall(r"(?:^    .+\n)+", DOCUMENT, re.MULTILINE):
        for entry in re.split(r"^    (?=\S)", block, flags=re.MULTILINE):
            what, _, rest = " ".join(entry.split()).partition(": ")
            terms, equals, total = rest.partition(" = ")
            if equals and " + " in terms and (found := re.match(r"([\d.]+) MiB", total)):
                yield what, terms.split(" + "), float(found[1])


def test_the_sums_add_up() -> None:
    found = [(what, terms, total) for what, terms, total in sums() if "KiB" not in "".join(terms)]
    assert len(found) >= 2
    for what, terms, total in found:
        assert sum(float(re.findall(r"\d[\d.]*", term)[-1]) for term in terms) == total, what


def test_the_sums_are_made_of_the_bounds() -> None:
    """Where a term is a product of bounds, it is that product."""
    from warren.agent import udp
    from warren.agent.capture import fragments, table
    from warren.connector import nameservers
    from warren.fabric.core import credit

    mib = 1 << 20
    assert 8 * mib == table.MAX_HELD * table.MAX_SYN_SIZE
    assert 8 * mib == udp.WAITING_ALL and 2 * mib == fragments.BYTES
    assert 8 * mib == nameservers.ASKING * nameservers.ANSWER_MAX
    assert 256 * mib == credit.PROCESS_WINDOW and mib // 4 == credit.INITIAL_WINDOW
