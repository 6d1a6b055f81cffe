"""The table of decisions, and what is signed for an allowed one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.edge.judge.decide import Allowed, Refused, decide, destination, grant, routes_to
from warren.edge.judge.policy import Verdict
from warren.edge.store.records import Device, Route, Tunnel
from warren.edge.store.snapshot import build
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.grants import Issuer, Revision, Verifier, certify_grant_key

NOW = 1_800_000_000.0
THUMB = "ab" * 32
DEVICE = Device(
    id="d" * 20, name="laptop", thumbprint=THUMB, host="lap", vnet="default", user="ann", groups=(), tags=(),
    created=1, expires=2, enrolled=2, seen=2, revision=3,
)  # fmt: skip
OTHER = replace(DEVICE, id="e" * 20, name="lab-laptop", thumbprint="cd" * 32, vnet="lab")
WAITING = replace(DEVICE, id="f" * 20, name="new", thumbprint="", enrolled=0)
SITE = Tunnel("a" * 20, "site", b"ca", b"statement", 1, 1, 1)
LAB = Tunnel("b" * 20, "lab", b"ca2", b"statement2", 1, 1, 2)


def route(id_: str, kind: str, value: str, tunnel: Tunnel = SITE, vnet: str = "default") -> Route:
    return Route(id_, "ip" if kind == "ip" else "host", value, tunnel.id, vnet, "", 1, 1)


RESOLVER = Route("zone0000", "resolver", "corp.example", LAB.id, "default", "", 1, 1, ("10.1.0.53", "10.1.0.54:5353"))


SNAPSHOT = build(
    7, 11, [SITE, LAB],
    [
        route("wide0000", "ip", "10.0.0.0/8"),
        route("narrow00", "ip", "10.9.0.0/16", LAB),
        route("labwide0", "ip", "10.0.0.0/8", LAB, "lab"),
        route("six00000", "ip", "fd00::/8"),
        route("payroll0", "host", "payroll.internal"),
        route("wild0000", "host", "*.corp.internal", LAB),
        RESOLVER,
        replace(RESOLVER, id="labzone0", vnet="lab"),
        replace(route("orphan00", "ip", "192.168.0.0/24"), tunnel="z" * 20),
    ],
    [DEVICE, OTHER, WAITING],
)  # fmt: skip

ALLOWED = [
    (THUMB, "tcp", 80, {"address": "10.1.2.3"}, "wide0000", "site", "10.1.2.3"),
    (THUMB, "tcp", 80, {"address": "10.9.2.3"}, "narrow00", "lab", "10.9.2.3"),
    (OTHER.thumbprint, "tcp", 80, {"address": "10.9.2.3"}, "labwide0", "lab", "10.9.2.3"),
    (THUMB, "udp", 53, {"address": "FD00:0::1"}, "six00000", "site", "fd00::1"),
    (THUMB, "icmp", 4711, {"address": "10.1.2.3"}, "wide0000", "site", "10.1.2.3"),
    (THUMB, "tcp", 65535, {"host": "Payroll.Internal."}, "payroll0", "site", "payroll.internal"),
    (THUMB, "tcp", 1, {"host": "a.b.corp.internal"}, "wild0000", "lab", "a.b.corp.internal"),
]

REFUSED = [
    ("00" * 32, "tcp", 80, {"address": "10.1.2.3"}, Reason.DEVICE_UNKNOWN, ""),
    ("", "tcp", 80, {"address": "10.1.2.3"}, Reason.DEVICE_UNKNOWN, ""),
    (THUMB, "tcp", 80, {"address": "172.16.0.1"}, Reason.NO_ROUTE, "172.16.0.1"),
    (THUMB, "tcp", 80, {"address": "::ffff:10.1.2.3"}, Reason.NO_ROUTE, "default"),
    (THUMB, "tcp", 80, {"address": "192.168.0.1"}, Reason.NO_ROUTE, "deleted"),
    (THUMB, "tcp", 80, {"host": "other.internal"}, Reason.NO_ROUTE, "other.internal"),
    (THUMB, "tcp", 80, {"host": "corp.internal"}, Reason.NO_ROUTE, "corp.internal"),
    (THUMB, "tcp", 80, {"host": "*.corp.internal"}, Reason.NO_ROUTE, "corp.internal"),
    (THUMB, "tcp", 80, {"host": "10.1.2.3"}, Reason.NO_ROUTE, "10.1.2.3"),
    (OTHER.thumbprint, "tcp", 80, {"host": "payroll.internal"}, Reason.NO_ROUTE, "lab"),
    (THUMB, "sctp", 80, {"address": "10.1.2.3"}, Reason.UNSUPPORTED, "sctp"),
    (THUMB, "tcp", 0, {"address": "10.1.2.3"}, Reason.PROTOCOL, "port 0"),
    (THUMB, "udp", 65536, {"address": "10.1.2.3"}, Reason.PROTOCOL, "65536"),
    (THUMB, "tcp", 80, {}, Reason.PROTOCOL, "one of both"),
    (THUMB, "tcp", 80, {"address": "10.1.2.3", "host": "payroll.internal"}, Reason.PROTOCOL, "one of both"),
    (THUMB, "tcp", 80, {"address": "10.1.2"}, Reason.PROTOCOL, "10.1.2"),
    (THUMB, "tcp", 80, {"address": "fe80::1%eth0"}, Reason.PROTOCOL, "fe80"),
]


@pytest.mark.parametrize(("thumbprint", "protocol", "port", "where", "route_id", "tunnel", "destination"), ALLOWED)
def test_allowed(
    thumbprint: str, protocol: str, port: int, where: dict[str, Any], route_id: str, tunnel: str, destination: str
) -> None:
    decision = decide(SNAPSHOT, thumbprint, protocol, port, NOW, **where)
    assert isinstance(decision, Allowed)
    assert (decision.route.id, decision.tunnel.name) == (route_id, tunnel)
    assert (decision.address or decision.host) == destination
    assert bool(decision.host) == ("host" in where)
    expected = 0 if protocol == "icmp" else port
    assert (decision.low, decision.high, decision.rule) == (expected, expected, "every-device")


@pytest.mark.parametrize(("thumbprint", "protocol", "port", "where", "reason", "detail"), REFUSED)
def test_refused(thumbprint: str, protocol: str, port: int, where: dict[str, Any], reason: Reason, detail: str) -> None:
    decision = decide(SNAPSHOT, thumbprint, protocol, port, NOW, **where)
    assert isinstance(decision, Refused)
    assert decision.reason is reason
    assert detail in decision.detail


def test_the_policy_has_a_say_after_the_route() -> None:
    class Nobody:
        def judge(self, device: Device, route: Route, protocol: str, port: int, now: float) -> Verdict:
            return Verdict(allowed=False, reason=Reason.POLICY, rule="nobody")

    denied = decide(SNAPSHOT, THUMB, "tcp", 80, NOW, address="10.1.2.3", policy=Nobody())
    assert denied == Refused(Reason.POLICY, "rule nobody")
    unrouted = decide(SNAPSHOT, THUMB, "tcp", 80, NOW, address="172.16.0.1", policy=Nobody())
    assert isinstance(unrouted, Refused)
    assert unrouted.reason is Reason.NO_ROUTE


@given(st.text(), st.integers(), st.text(), st.text())
def test_anything_gets_a_decision(protocol: str, port: int, address: str, host: str) -> None:
    for said in (protocol, "tcp"):
        decision = decide(SNAPSHOT, THUMB, said, port, NOW, address=address, host=host)
        assert isinstance(decision, Allowed | Refused)


def test_a_grant_says_exactly_what_was_decided() -> None:
    network_key, authority_key, grant_key = keys.generate(), keys.generate(), keys.generate()
    network = certificates.make_network(network_key)
    authority = certificates.make_edge_authority(network_key, network, keys.public(authority_key))
    certificate = certify_grant_key(authority_key, "edge00000001", keys.public(grant_key))
    issuer = Issuer("edge00000001", grant_key, certificate, authority)
    decision = decide(SNAPSHOT, THUMB, "tcp", 443, NOW, host="payroll.internal")
    assert isinstance(decision, Allowed)

    signed = grant(decision, issuer, NOW)

    verifier = Verifier(network)
    said = verifier.grant(signed.grant, NOW + 59)
    assert said.covers("tcp", "", "payroll.internal", 443)
    assert not said.covers("tcp", "", "payroll.internal", 444)
    assert (said.device, said.thumbprint, said.user) == (DEVICE.id, THUMB, "ann")
    assert (said.tunnel, said.vnet, said.route, said.rule) == (SITE.id, "default", "payroll0", "every-device")
    assert (said.revision, said.issued) == (Revision(7, 11), NOW)
    permit = verifier.permit(signed.permit, NOW + 899)
    assert (permit.thumbprint, permit.tunnel) == (THUMB, SITE.id)
    for late in (lambda: verifier.grant(signed.grant, NOW + 60), lambda: verifier.permit(signed.permit, NOW + 900)):
        with pytest.raises(DeniedError) as refused:
            late()
        assert refused.value.reason is Reason.GRANT_EXPIRED


@pytest.mark.parametrize(
    ("text", "vnet", "ids"),
    [
        ("10.9.2.3", "default", ["narrow00", "wide0000"]),
        ("10.9.2.3", "lab", ["labwide0"]),
        ("fd00::1", "default", ["six00000"]),
        ("DB.Corp.Internal.", "default", ["wild0000"]),
        ("corp.internal", "default", []),
        ("payroll.internal", "lab", []),
    ],
)
def test_what_a_person_asks_about_is_found_by_the_same_tables(text: str, vnet: str, ids: list[str]) -> None:
    target = destination(text)
    assert not isinstance(target, Refused)
    assert [route.id for route in routes_to(SNAPSHOT, vnet, target)] == ids


@given(st.text())
def test_any_text_is_a_destination_or_refused(text: str) -> None:
    target = destination(text)
    if not isinstance(target, Refused):
        list(routes_to(SNAPSHOT, "default", target))


@pytest.mark.parametrize(("address", "port"), [("10.1.0.53", 53), ("10.1.0.54", 5353)])
def test_a_server_of_a_resolver_route_lies_behind_the_tunnel_of_that_route(address: str, port: int) -> None:
    said = decide(SNAPSHOT, THUMB, "udp", port, NOW, address=address, resolver=RESOLVER.id)
    assert isinstance(said, Allowed)
    assert (said.tunnel, said.route, said.low, said.high) == (LAB, RESOLVER, port, port)
    by_address = decide(SNAPSHOT, THUMB, "udp", port, NOW, address=address)
    assert isinstance(by_address, Allowed) and by_address.tunnel == SITE


@pytest.mark.parametrize(
    ("resolver", "address", "port"),
    [
        (RESOLVER.id, "10.1.0.53", 54),
        (RESOLVER.id, "10.1.0.54", 53),
        (RESOLVER.id, "10.1.0.55", 53),
        ("labzone0", "10.1.0.53", 53),
        ("wide0000", "10.1.0.53", 53),
        ("nothing0", "10.1.0.53", 53),
    ],
)
def test_a_resolver_route_opens_nothing_but_its_servers(resolver: str, address: str, port: int) -> None:
    said = decide(SNAPSHOT, THUMB, "udp", port, NOW, address=address, resolver=resolver)
    assert isinstance(said, Refused) and said.reason is Reason.NO_ROUTE
