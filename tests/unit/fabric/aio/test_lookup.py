"""Where an edge is, as the host's own addresses come and go."""

from __future__ import annotations

import asyncio

import pytest

from warren.fabric.aio import lookup
from warren.fabric.aio.lookup import Whereabouts, any_address, source_address
from warren.fabric.core.engine import Address
from warren.fabric.identity.statements import Edge

EDGE = Edge("e" * 20, "edge.example.net", 4433)
SIX, FOUR = ("2001:db8::10", 4433), ("203.0.113.10", 4433)


class Host:
    """Own address → by the edge's address; what its name server says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sources: dict[Address, str] = {SIX: "2001:db8:1::2", FOUR: "192.0.2.2"}
        self.answers = True
        monkeypatch.setattr(lookup, "source_address", lambda towards, mark=0: self.sources.get(towards, ""))
        monkeypatch.setattr(lookup, "edge_addresses", self._look_up)
        monkeypatch.setattr(lookup, "LOOK_UP_TIME", 0.01)

    async def _look_up(self, edge: Edge) -> tuple[Address, ...]:
        if not self.answers:
            await asyncio.sleep(60)
        return SIX, FOUR


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def found(where: Whereabouts, attempt: int = 0) -> Address:
    return asyncio.run(where.look_up(attempt))


def test_attempts_take_turns_among_the_addresses_with_a_route(host: Host) -> None:
    assert [found(Whereabouts(EDGE), attempt) for attempt in range(3)] == [SIX, FOUR, SIX]
    del host.sources[SIX]
    assert [found(Whereabouts(EDGE), attempt) for attempt in range(2)] == [FOUR, FOUR]


def test_a_name_server_that_is_silent_holds_up_nobody_who_knows_the_addresses(host: Host) -> None:
    where = Whereabouts(EDGE)
    found(where)
    host.answers = False
    assert found(where, 1) == FOUR


def test_another_own_address_is_another_way(host: Host) -> None:
    where = Whereabouts(EDGE)
    assert not where.moved(), "nothing is known yet"
    found(where)
    assert not where.moved()
    host.sources[SIX] = "2001:db8:2::2"
    assert where.moved() and where.address == SIX
    assert not where.moved()


def test_the_other_family_is_used_where_this_one_has_no_route_any_more(host: Host) -> None:
    where = Whereabouts(EDGE)
    found(where)
    source = host.sources.pop(SIX)
    assert where.moved() and where.address == FOUR
    host.sources[SIX] = source
    assert not where.moved(), "what works stays in use"


def test_no_route_at_all_is_no_way_and_the_same_one_again_is_another(host: Host) -> None:
    where = Whereabouts(EDGE)
    found(where)
    before = dict(host.sources)
    host.sources.clear()
    assert not where.moved()
    host.sources.update(before)
    assert where.moved() and where.address == SIX


def test_the_kernel_is_asked() -> None:
    assert source_address(("127.0.0.1", 4433)) == "127.0.0.1"
    assert source_address(("255.255.255.255", 4433)) == "", "what it refuses is no way"
    assert any_address(FOUR) == ("0.0.0.0", 0) and any_address(SIX) == ("::", 0)
