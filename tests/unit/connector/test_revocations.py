"""What was taken back opens nothing, ends what stands on it, and nothing else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fabric.identity.world import WORLD
from warren.connector import revocations
from warren.connector.revocations import Revocations, names_of
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity.grants import Grant, Revision


def grant(device: str = "laptop", route: str = "lan", counter: int = 5, epoch: int = 1) -> Grant:
    return msgspec.structs.replace(WORLD.grant(), device=device, route=route, revision=Revision(epoch, counter))


class World:
    """Flows by name, and which of them ended."""

    def __init__(self) -> None:
        self.revocations = Revocations()
        self.revocations.revoke(1, ())
        self.ended: list[str] = []

    def open(self, name: str, given: Grant) -> revocations.Standing:
        self.revocations.check(given)
        return self.revocations.enter(given, lambda: self.ended.append(name))


def refused(world: World, given: Grant) -> Reason | None:
    try:
        world.revocations.check(given)
    except DeniedError as error:
        return error.reason
    return None


def test_nothing_is_opened_before_the_first_list() -> None:
    with pytest.raises(DeniedError):
        Revocations().check(grant())


@pytest.mark.parametrize("name", ["laptop", "lan", WORLD.tunnel], ids=["device", "route", "tunnel"])
def test_flows_that_stand_on_it_end_once_and_no_grant_of_before_opens(name: str) -> None:
    world = World()
    world.open("one", grant())
    world.open("other", grant("phone", "dmz")) if name != WORLD.tunnel else None
    assert world.revocations.revoke(1, ((name, 6),)) == 1
    assert world.revocations.revoke(1, ((name, 6),)) == 0
    assert world.ended == ["one"]
    assert refused(world, grant()) is Reason.STALE_GRANT
    assert refused(world, grant(counter=6)) is None


def test_who_left_is_not_ended() -> None:
    world = World()
    standing = world.open("one", grant())
    world.revocations.leave(standing)
    world.revocations.leave(standing)
    assert len(world.revocations) == 0 and list(world.revocations.ids()) == []
    assert world.revocations.revoke(1, (("laptop", 9),)) == 0


def test_a_newer_flow_of_the_same_device_goes_on() -> None:
    world = World()
    world.open("old", grant(counter=5))
    world.open("new", grant(counter=8))
    world.revocations.revoke(1, (("laptop", 8),))
    assert world.ended == ["old"]


def test_a_restored_store_counts_anew() -> None:
    world = World()
    world.revocations.revoke(1, (("laptop", 50),))
    world.open("old", grant("phone", counter=70))
    world.revocations.revoke(2, ())
    assert refused(world, grant(epoch=1, counter=99)) is Reason.STALE_GRANT
    assert refused(world, grant(epoch=2, counter=1)) is None
    assert world.ended == []
    world.revocations.revoke(2, (("phone", 3),))  # which the restored store does not know
    assert world.ended == ["old"]
    assert world.revocations.revoke(1, (("laptop", 99),)) == 0


def test_without_a_lease_everything_ends() -> None:
    world = World()
    world.open("one", grant())
    world.open("two", grant("phone"))
    assert world.revocations.end_all() == 2
    assert sorted(world.ended) == ["one", "two"] and len(world.revocations) == 0


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "REVOKED_MAX", 10)
    world = World()
    world.revocations.revoke(1, ((f"d{n}", 9) for n in range(50)))
    assert refused(world, grant("d0")) is None
    assert refused(world, grant("d49")) is Reason.STALE_GRANT


def test_a_user_or_a_rule_is_no_device() -> None:
    names = names_of(msgspec.structs.replace(grant("x"), user="x", rule="x"))
    assert len(set(names)) == 5


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("rs"), st.integers(1, 9))),
    st.lists(st.tuples(st.sampled_from("abcrs"), st.integers(1, 10))),
)
def test_exactly_the_older_flows_end(flows: list[tuple[str, str, int]], entries: list[tuple[str, int]]) -> None:
    revoked, ended = Revocations(), set[int]()
    revoked.revoke(1, ())
    for index, (device, route, counter) in enumerate(flows):
        revoked.enter(grant(device, route, counter), lambda index=index: ended.add(index))  # type: ignore[misc]
    revoked.revoke(1, entries)
    stale = {
        index
        for index, (device, route, counter) in enumerate(flows)
        if any(name in (device, route) and counter < least for name, least in entries)
    }
    assert ended == stale
