"""The stub says all that the module has, and the module has all that the stub says; every call explains itself."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

wq = pytest.importorskip("warren_quic", exc_type=ImportError)
wq.Connection  # noqa: B018  # a bare folder of that name imports too

STUB = ast.parse((Path(__file__).parents[1] / "warren_quic.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}


def _parameters(node: ast.FunctionDef) -> list[str]:
    asked = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [a.arg for a in asked if a.arg not in ("self", "cls")]


def _public(thing: object) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


def test_the_module_and_the_stub_name_the_same() -> None:
    assert _public(wq) - {"warren_quic"} == set(CLASSES) | set(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"InvalidInputError"}))
def test_a_class_has_what_the_stub_says_and_explains_it(name: str) -> None:
    made, node = getattr(wq, name), CLASSES[name]
    methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    fields = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    assert _public(made) == fields | (set(methods) - {"__new__"})
    assert made.__doc__
    for method, said in methods.items():
        if method == "__new__":
            assert list(inspect.signature(made).parameters) == _parameters(said)
            continue
        found = getattr(made, method)
        assert found.__doc__, method
        assert [p for p in inspect.signature(found).parameters if p != "self"] == _parameters(said), method


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_has_the_stubs_parameters(name: str) -> None:
    assert list(inspect.signature(getattr(wq, name)).parameters) == _parameters(FUNCTIONS[name])
    assert getattr(wq, name).__doc__


def test_whoever_gives_wrong_arguments_gets_a_value_error() -> None:
    assert issubclass(wq.InvalidInputError, ValueError) and wq.InvalidInputError.__doc__
