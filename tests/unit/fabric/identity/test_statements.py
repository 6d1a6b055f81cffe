from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fabric.identity.world import OTHER, WORLD
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity.statements import Edge, EdgeList, sign_edges, sign_tunnel, verify_edges, verify_tunnel


def test_the_list_of_edges_is_verified() -> None:
    assert verify_edges(WORLD.signed_edges, WORLD.network) == WORLD.edges
    assert WORLD.edges.find(WORLD.edge) == WORLD.edges.edges[0]
    assert WORLD.edges.find(OTHER.edge) is None
    with pytest.raises(DeniedError) as caught:
        verify_edges(WORLD.signed_edges, OTHER.network)
    assert caught.value.reason is Reason.BAD_PROOF


def test_an_edge_reads_as_host_and_port() -> None:
    assert str(Edge("a" * 20, "2001:db8::1", 4433)) == "[2001:db8::1]:4433"
    assert str(Edge("a" * 20, "192.0.2.1", 4433)) == "192.0.2.1:4433"
    assert Edge("a" * 20, "192.0.2.1", 4433).server_name == "a" * 20 + ".edge.warren.internal"


@pytest.mark.parametrize(
    "edges", [EdgeList(1, ()), EdgeList(1, (Edge("../x", "h", 1),)), EdgeList(1, (Edge("a" * 20, "h", 0),))]
)
def test_a_list_that_breaks_the_rules_is_refused_though_signed(edges: EdgeList) -> None:
    with pytest.raises(DeniedError):
        verify_edges(sign_edges(WORLD.network_key, edges), WORLD.network)


def test_a_tunnel_is_what_the_network_key_said() -> None:
    said = verify_tunnel(WORLD.statement, WORLD.tunnel_ca, WORLD.network, lowest=1)
    assert (said.tunnel, said.revision) == (WORLD.tunnel, 1)
    invented = sign_tunnel(OTHER.network_key, WORLD.tunnel, WORLD.tunnel_ca, 1)
    for statement, authority, lowest in [
        (invented, WORLD.tunnel_ca, 0),
        (WORLD.statement, OTHER.tunnel_ca, 0),
        (WORLD.statement, WORLD.tunnel_ca, 2),
        (WORLD.signed_edges, WORLD.tunnel_ca, 0),
        (b"", WORLD.tunnel_ca, 0),
    ]:
        with pytest.raises(DeniedError) as caught:
            verify_tunnel(statement, authority, WORLD.network, lowest=lowest)
        assert caught.value.reason is Reason.WRONG_TUNNEL


def test_one_kind_of_statement_is_not_another() -> None:
    """The same bytes under the other label."""
    body = msgspec.msgpack.encode(WORLD.edges)
    signed = WORLD.network_key.sign(b"warren-tunnel/1\0" + body) + body
    with pytest.raises(DeniedError):
        verify_edges(signed, WORLD.network)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_statement_or_denied(data: bytes) -> None:
    with pytest.raises(DeniedError):
        verify_edges(data, WORLD.network)
    with pytest.raises(DeniedError):
        verify_tunnel(data, WORLD.tunnel_ca, WORLD.network)


@given(st.integers(0, 8 * len(WORLD.signed_edges) - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    data = bytearray(WORLD.signed_edges)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DeniedError):
        verify_edges(bytes(data), WORLD.network)
