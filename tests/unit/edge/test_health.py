"""What /ready says of the store: open; away, but within the lease; away for too long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from warren.edge.app import Edge
from warren.edge.health import ready

pytestmark = pytest.mark.anyio


class View:
    """A follower as it stands."""

    def __init__(self, fault: str, age: float, fresh: bool) -> None:
        self.fault, self._age, self._fresh = fault, age, fresh

    def age(self) -> float:
        return self._age

    def fresh(self) -> bool:
        return self._fresh

    async def look(self) -> None:
        pass


async def said(view: View, *, shared: bool = True) -> tuple[bool, dict[str, Any]]:
    socket = SimpleNamespace(fileno=lambda: 7)
    repository = SimpleNamespace(shared=object() if shared else None)
    engine = SimpleNamespace(name="aioquic", controller="")
    edge = SimpleNamespace(socket=socket, follower=view, repository=repository, engine=engine)
    able, shown = await ready(cast(Edge, edge))
    return able, {key: shown[key] for key in ("socket", "store")}


async def test_what_is_said_of_the_store() -> None:
    assert await said(View("", 0.1, True)) == (True, {"socket": "bound", "store": "open"})
    able, shown = await said(View("refused", 480.0, True))
    assert (able, shown["store"]) == (True, "away for 480 s: decided from memory (refused)")
    able, shown = await said(View("refused", 601.0, False))
    assert (able, shown["store"]) == (False, "away for 601 s: no flow is granted (refused)")
    able, shown = await said(View("disk", 0.0, True), shared=False)
    assert (able, shown["store"]) == (False, "can't be read: no flow is granted (disk)")
