"""The connector's last word: each way in which a grant can be wrong, and the ceiling."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fabric.identity.world import DEVICE, NOW, OTHER, WORLD
from warren.connector.gate import Ceiling, Gate
from warren.fabric.core import dnswire
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import keys
from warren.fabric.identity.grants import Verifier

KEY = keys.public(DEVICE)
ELAPSED = 5000.0
"""CLOCK_BOOTTIME when the edge said that it is NOW."""


def gate(ceiling: Ceiling | None = None, tunnel: str = WORLD.tunnel) -> Gate:
    made = Gate(tunnel, Verifier(WORLD.network, WORLD.edges), ceiling or Ceiling())
    made.clock(WORLD.edge, NOW, ELAPSED)
    made.revocations.revoke(0, ())
    return made


def signed(**changes: Any) -> bytes:
    return WORLD.issuer.grant(msgspec.structs.replace(WORLD.grant(), **changes))


def opening(grant: bytes, **changes: Any) -> Open:
    asked: dict[str, Any] = {"protocol": "tcp", "port": 443, "address": "10.10.0.5", "host": ""}
    return Open(b"f" * 16, grant, **{**asked, **changes})


def refusal(message: Open, key: bytes = KEY, elapsed: float = ELAPSED, at: Gate | None = None) -> Reason:
    with pytest.raises(DeniedError) as denied:
        (at or gate()).check(message, key, elapsed)
    return denied.value.reason


def test_what_was_granted_is_opened() -> None:
    assert gate().check(opening(signed()), KEY, ELAPSED).device == "d1"


def test_another_device_may_not_use_it() -> None:
    assert refusal(opening(signed()), keys.public(keys.generate())) is Reason.GRANT_MISMATCH


def test_a_grant_for_another_tunnel_is_refused() -> None:
    assert refusal(opening(signed(tunnel=OTHER.tunnel))) is Reason.GRANT_MISMATCH


@pytest.mark.parametrize(
    "asked",
    [
        {"address": "10.10.0.6"},
        {"address": "", "host": "payroll.internal"},
        {"address": "10.10.0.5", "host": "payroll.internal"},
        {"address": ""},
        {"port": 442},
        {"port": 444},
        {"protocol": "udp"},
    ],
)
def test_another_destination_port_or_protocol_is_refused(asked: dict[str, Any]) -> None:
    assert refusal(opening(signed(), **asked)) is Reason.GRANT_MISMATCH


def test_an_expired_grant_is_refused_by_the_edges_clock() -> None:
    grant = opening(signed())
    assert gate().check(grant, KEY, ELAPSED + 59)
    assert refusal(grant, elapsed=ELAPSED + 61) is Reason.GRANT_EXPIRED


def test_a_newer_grant_of_the_edge_moves_its_clock_on() -> None:
    at = gate()
    old = opening(signed())
    at.check(opening(signed(issued=NOW + 100, expires=NOW + 160)), KEY, ELAPSED)
    assert refusal(old, at=at) is Reason.GRANT_EXPIRED


def test_a_grant_of_another_network_is_refused() -> None:
    grant = OTHER.issuer.grant(msgspec.structs.replace(WORLD.grant(), tunnel=WORLD.tunnel))
    assert refusal(opening(grant)) is Reason.BAD_GRANT


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert refusal(opening(data)) is Reason.BAD_GRANT


@given(st.integers(0, len(signed()) * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    data = bytearray(signed())
    data[bit // 8] ^= 1 << bit % 8
    assert refusal(opening(bytes(data))) is Reason.BAD_GRANT


def test_a_pass_is_no_grant() -> None:
    permit = WORLD.issuer.permit(keys.thumbprint(KEY), WORLD.tunnel, NOW + 60)
    assert refusal(opening(permit)) is Reason.BAD_GRANT


def test_a_connector_cannot_replay_a_grant_at_another_connector_of_its_tunnel() -> None:
    """It was shown the grant; at its sister it can prove its own key only, not the device's."""
    grant = opening(signed())
    assert gate().check(grant, KEY, ELAPSED)
    assert refusal(grant, keys.public(WORLD.connector_key), at=gate()) is Reason.GRANT_MISMATCH


def test_before_an_edge_told_the_time_nothing_opens() -> None:
    fresh = Gate(WORLD.tunnel, Verifier(WORLD.network, WORLD.edges), Ceiling())
    assert refusal(opening(signed()), at=fresh) is Reason.STALE_GRANT


def test_a_new_process_of_an_edge_may_have_a_clock_that_was_set_back() -> None:
    hour, at = 3600.0, gate()
    assert at.check(opening(signed()), KEY, ELAPSED)
    earlier = opening(signed(issued=NOW - hour, expires=NOW - hour + 60))
    assert refusal(earlier, at=at) is Reason.GRANT_EXPIRED
    at.clock(WORLD.edge, NOW - hour, ELAPSED)
    assert at.check(earlier, KEY, ELAPSED)


def test_before_an_edge_told_what_was_revoked_nothing_opens() -> None:
    fresh = Gate(WORLD.tunnel, Verifier(WORLD.network, WORLD.edges), Ceiling())
    fresh.clock(WORLD.edge, NOW, ELAPSED)
    assert refusal(opening(signed()), at=fresh) is Reason.STALE_GRANT
    fresh.revocations.revoke(0, ())
    assert fresh.check(opening(signed()), KEY, ELAPSED)


def question(name: str, kind: int = dnswire.A) -> dnswire.Question:
    read = dnswire.read_question(dnswire.build_query(1, dnswire.name_wire(name), kind))
    assert isinstance(read, dnswire.Question)
    return read


def test_a_name_is_looked_up_for_whom_it_was_granted() -> None:
    grant = signed(address="", host="payroll.internal")
    assert gate().check_question(grant, KEY, question("payroll.internal"), ELAPSED)
    assert gate().check_question(grant, KEY, question("payroll.internal", dnswire.TXT), ELAPSED)
    for key, host in ((KEY, "db.internal"), (keys.public(keys.generate()), "payroll.internal")):
        with pytest.raises(DeniedError) as denied:
            gate().check_question(grant, key, question(host), ELAPSED)
        assert denied.value.reason is Reason.GRANT_MISMATCH


def test_a_grant_for_an_address_also_asks_for_its_name() -> None:
    grant = signed(address="10.10.0.10")
    assert gate().check_question(grant, KEY, question("10.0.10.10.in-addr.arpa", dnswire.PTR), ELAPSED)
    for name, kind in (("11.0.10.10.in-addr.arpa", dnswire.PTR), ("10.0.10.10.in-addr.arpa", dnswire.TXT)):
        with pytest.raises(DeniedError):
            gate().check_question(grant, KEY, question(name, kind), ELAPSED)


def test_a_grant_for_udp_asks_that_name_server_whatever_the_ceiling_allows() -> None:
    grant = signed(protocol="udp", address="10.10.0.53", low=53, high=53)
    assert gate().check_question(grant, KEY, question("www.corp.example"), ELAPSED).low == 53
    for more in ("10.10.0.0/24:443", "10.11.0.0/16"):
        with pytest.raises(DeniedError) as denied:
            gate(Ceiling.parse([more])).check_question(grant, KEY, question("www.corp.example"), ELAPSED)
        assert denied.value.reason is Reason.CEILING


# --- the ceiling


def verdict(ceiling: list[str], address: str, port: int) -> Reason | None:
    try:
        Ceiling.parse(ceiling).check(ipaddress.ip_address(address), port)
    except DeniedError as denied:
        return denied.reason
    return None


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "::1", "::",
     "fe80::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"],
)  # fmt: skip
def test_reserved_addresses_are_refused_unless_named(address: str) -> None:
    assert verdict([], address, 80) is Reason.RESERVED_ADDRESS
    plain = ipaddress.ip_address(address)
    mapped = plain.ipv4_mapped if isinstance(plain, ipaddress.IPv6Address) else None
    assert verdict([f"{mapped or plain}/{32 if (mapped or plain).version == 4 else 128}"], address, 80) is None


def test_without_a_ceiling_everything_else_is_allowed() -> None:
    assert verdict([], "10.10.0.5", 22) is None
    assert verdict([], "2001:db8::1", 22) is None


@pytest.mark.parametrize(
    ("address", "port", "reason"),
    [
        ("10.10.0.5", 443, None),
        ("10.10.0.5", 8500, None),
        ("10.10.0.5", 22, Reason.CEILING),
        ("10.11.0.5", 443, Reason.CEILING),
        ("::ffff:10.10.0.5", 443, None),
        ("fd00::5", 22, None),
        ("fd00::5", 23, Reason.CEILING),
        ("127.0.0.1", 443, Reason.RESERVED_ADDRESS),
    ],
)
def test_the_ceiling_names_networks_and_ports(address: str, port: int, reason: Reason | None) -> None:
    assert verdict(["10.10.0.0/16:443,8000-8999", "[fd00::/8]:22"], address, port) is reason


@pytest.mark.parametrize(
    "text", ["10.10.0.0/33", "10.10.0.5/16", "10.10.0.0/16:0", "10.10.0.0/16:9-8", "x", "[fd00::/8", ""]
)
def test_a_bad_ceiling_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        Ceiling.parse([text])
    assert "\n" not in str(error.value) and f"{text}: use CIDR or CIDR:PORTS" in str(error.value)
