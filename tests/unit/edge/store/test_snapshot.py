"""A snapshot that was advanced step by step is the one that is built from all rows."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from warren.edge.store.records import Device, Route, Tunnel
from warren.edge.store.snapshot import Snapshot, advance, build

EMPTY = build(1, 0, (), (), ())
TUNNELS = [Tunnel(f"tunnel{index}", f"t{index}", b"", b"", 1, 1, 1) for index in range(2)]
ROUTES = [
    *(Route(f"cidr{index}", "ip", f"10.{index}.0.0/16", "tunnel0", f"net{index % 2}", "", 1, 1) for index in range(4)),
    Route("zone0", "resolver", "corp.example", "tunnel0", "net0", "", 1, 1, ("10.0.0.53",)),
    Route("wild0", "host", "*.corp.example", "tunnel1", "net0", "", 1, 1),
    *(Route(f"name{index}", "host", f"{index}.internal", "tunnel1", f"net{index % 3}", "", 1, 1) for index in range(4)),
]
DEVICES = [
    Device(f"device{index}", f"d{index}", "", "", "net0", "", (), (), 1, 2, 0, 0, 1) for index in range(3)
]  # fmt: skip
RECORDS: list[Any] = [*TUNNELS, *ROUTES, *DEVICES]


def whole(records: dict[str, Any], revision: int) -> Snapshot:
    kinds: list[list[Any]] = [[r for r in records.values() if isinstance(r, kind)] for kind in (Tunnel, Route, Device)]
    return build(1, revision, *kinds)


def contents(snapshot: Snapshot) -> dict[str, Any]:
    tables = ("epoch", "revision", "devices", "devices_by_id", "tunnels", "routes")
    found: dict[str, Any] = {name: getattr(snapshot, name) for name in tables}
    for name, network in snapshot.networks.items():
        found[name] = network.cidrs, network.zones, network.names.find("a.corp.example")
        for index in range(5):
            address = ipaddress.ip_address(f"10.{index}.0.1")
            found[f"{name} {index}"] = (
                snapshot.address_route(name, address), snapshot.host_route(name, f"{index}.internal")
            )  # fmt: skip
    return found


@st.composite
def step(draw: st.DrawFn) -> tuple[list[Any], list[str]]:
    """Some added or altered, some (others) deleted; devices are altered by enrolling."""
    chosen = draw(st.lists(st.sampled_from(RECORDS), max_size=4, unique_by=lambda record: record.id))
    gone = draw(st.lists(st.sampled_from(RECORDS), max_size=4).map(lambda all_: [record.id for record in all_]))
    enrolled = draw(st.booleans())
    changed = [
        replace(record, thumbprint=f"thumb {record.id}" * enrolled) if isinstance(record, Device) else record
        for record in chosen
        if record.id not in gone
    ]
    return changed, gone


@given(st.lists(step(), max_size=12))
def test_step_by_step_is_as_good_as_whole(steps: list[tuple[list[Any], list[str]]]) -> None:
    snapshot, records = EMPTY, {}
    for revision, (changed, gone) in enumerate(steps):
        before = snapshot, contents(snapshot)
        snapshot = advance(snapshot, revision, changed, gone)
        records |= {record.id: record for record in changed}
        records = {id_: record for id_, record in records.items() if id_ not in gone}
        assert contents(snapshot) == contents(whole(records, revision))
        assert contents(before[0]) == before[1]


def test_what_a_change_does_not_touch_is_shared() -> None:
    first = whole({record.id: record for record in RECORDS}, 1)
    second = advance(first, 2, [], ["device0"])
    assert second.routes is first.routes
    assert second.networks is first.networks
    third = advance(second, 3, [], ["cidr0"])
    assert third.devices_by_id is second.devices_by_id
    assert third.networks["net1"] is second.networks["net1"]
    assert third.network("nowhere").cidrs == ()
