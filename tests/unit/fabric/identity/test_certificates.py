from __future__ import annotations

import datetime
import ssl

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fabric.identity.world import OTHER, WORLD
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates, keys


def refused(leaf: bytes, authority: bytes = WORLD.tunnel_ca, tunnel: str = WORLD.tunnel) -> str:
    with pytest.raises(DeniedError) as caught:
        certificates.verify_connector(leaf, authority, tunnel)
    assert caught.value.reason is Reason.BAD_PROOF
    return caught.value.detail


def strange_leaf(
    *, ca: bool = False, names: tuple[str, ...] = (), usage: bool = True, key: object = None, extra: bool = False
) -> bytes:
    """A leaf under the tunnel's CA that differs from an honest one in one thing."""
    issuer = x509.load_der_x509_certificate(WORLD.tunnel_ca).subject
    builder = x509.CertificateBuilder(issuer, x509.Name([]), key or keys.generate().public_key())  # type: ignore[arg-type]
    builder = builder.serial_number(7).not_valid_before(datetime.datetime(1970, 1, 1))
    builder = builder.not_valid_after(datetime.datetime(9999, 1, 1))
    builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    dns = [x509.DNSName(name) for name in names or (certificates.tunnel_name(WORLD.tunnel),)]
    builder = builder.add_extension(x509.SubjectAlternativeName(dns), critical=True)
    if extra:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        builder = builder.add_extension(unknown, critical=True)
    return builder.sign(WORLD.tunnel_key, None).public_bytes(Encoding.DER)


def test_honest_chains_are_verified_and_name_their_keys() -> None:
    raw = certificates.verify_connector(WORLD.connector_leaf, WORLD.tunnel_ca, WORLD.tunnel)
    assert raw == keys.public(WORLD.connector_key)
    raw = certificates.verify_edge(WORLD.edge_leaf, WORLD.edge_ca, WORLD.network, WORLD.edge)
    assert raw == keys.public(WORLD.edge_key)
    assert certificates.verify_authority(WORLD.network) == keys.public(WORLD.network_key)


def test_certificates_are_small_and_dated_for_boards_without_a_clock() -> None:
    for der in (WORLD.network, WORLD.edge_ca, WORLD.edge_leaf, WORLD.tunnel_ca, WORLD.connector_leaf):
        parsed = x509.load_der_x509_certificate(der)
        assert (parsed.not_valid_before_utc.year, parsed.not_valid_after_utc.year) == (1970, 9999)
        assert len(der) < 450


def test_strange_leaves_are_refused() -> None:
    name = certificates.tunnel_name(WORLD.tunnel)
    assert certificates.verify_connector(strange_leaf(), WORLD.tunnel_ca, WORLD.tunnel)
    assert "no leaf" in refused(strange_leaf(ca=True))
    assert "not for servers" in refused(strange_leaf(usage=False)) or "lacks" in refused(strange_leaf(usage=False))
    assert name in refused(strange_leaf(names=("x.tunnel.warren.internal",)))
    assert name in refused(strange_leaf(names=(name, "x.edge.warren.internal")))
    assert name in refused(strange_leaf(names=("*.tunnel.warren.internal",)))
    assert "Ed25519" in refused(strange_leaf(key=ec.generate_private_key(ec.SECP256R1()).public_key()))
    assert "not understood" in refused(strange_leaf(extra=True))


def test_another_issuer_and_another_role_are_refused() -> None:
    refused(OTHER.connector_leaf)
    refused(WORLD.connector_leaf, OTHER.tunnel_ca)
    refused(WORLD.connector_leaf, WORLD.tunnel_ca, OTHER.tunnel)
    refused(WORLD.edge_leaf)
    refused(WORLD.edge_leaf, WORLD.edge_ca, WORLD.edge)
    refused(WORLD.tunnel_ca)
    refused(WORLD.connector_leaf, WORLD.connector_leaf)
    for leaf, authority, network, edge in [
        (WORLD.edge_leaf, WORLD.edge_ca, OTHER.network, WORLD.edge),
        (WORLD.edge_leaf, OTHER.edge_ca, OTHER.network, WORLD.edge),
        (WORLD.edge_leaf, WORLD.edge_ca, WORLD.network, OTHER.edge),
        (WORLD.connector_leaf, WORLD.tunnel_ca, WORLD.network, WORLD.tunnel),
        (WORLD.edge_leaf, WORLD.network, WORLD.network, WORLD.edge),
    ]:
        with pytest.raises(DeniedError):
            certificates.verify_edge(leaf, authority, network, edge)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_certificate_or_denied(data: bytes) -> None:
    refused(data)
    refused(WORLD.connector_leaf, data)


@given(st.integers(0, 8 * len(WORLD.connector_leaf) - 1))
def test_any_flipped_bit_of_a_leaf_is_refused(bit: int) -> None:
    leaf = bytearray(WORLD.connector_leaf)
    leaf[bit // 8] ^= 1 << bit % 8
    refused(bytes(leaf))


@given(st.integers(0, 8 * len(WORLD.tunnel_ca) - 1))
def test_any_flipped_bit_of_a_ca_is_refused(bit: int) -> None:
    authority = bytearray(WORLD.tunnel_ca)
    authority[bit // 8] ^= 1 << bit % 8
    refused(WORLD.connector_leaf, bytes(authority))


def test_a_certificate_has_one_encoding() -> None:
    """The count of unused bits before the signature is covered by no signature; its last bits are often zero."""
    for _ in range(8):
        leaf = bytearray(certificates.make_connector(WORLD.tunnel_key, WORLD.tunnel_ca, WORLD.tunnel, bytes(32)))
        leaf[-65] = 1
        refused(bytes(leaf))


def test_pem_is_what_others_read() -> None:
    text = certificates.pem(WORLD.edge_leaf, WORLD.edge_ca)
    assert certificates.from_pem(text) == [WORLD.edge_leaf, WORLD.edge_ca]
    assert ssl.PEM_cert_to_DER_cert(certificates.pem(WORLD.network).decode()) == WORLD.network


# ---- two real connections, pumped in memory ----


def handshake(chain: tuple[bytes, ...], key: object, root: bytes, name: str) -> QuicConnection:
    """The client after the handshake with a server that shows `chain`."""
    client = QuicConfiguration(is_client=True, alpn_protocols=["t"], server_name=name)
    client.load_verify_locations(cadata=certificates.pem(root))
    server = QuicConfiguration(is_client=False, alpn_protocols=["t"])
    leaf, *rest = (x509.load_der_x509_certificate(der) for der in chain)
    server.certificate, server.certificate_chain = leaf, rest
    server.private_key = load_pem_private_key(keys.private_pem(key), None)  # type: ignore[arg-type,assignment]
    here = QuicConnection(configuration=client)
    here.connect(("192.0.2.1", 1), now=0.0)
    there = QuicConnection(
        configuration=server, original_destination_connection_id=here.original_destination_connection_id
    )
    for step in range(12):
        now = step * 0.01
        for data, _ in here.datagrams_to_send(now):
            there.receive_datagram(data, ("192.0.2.2", 2), now)
        for data, _ in there.datagrams_to_send(now):
            here.receive_datagram(data, ("192.0.2.1", 1), now)
    return here


def outcome(connection: QuicConnection) -> str:
    while (event := connection.next_event()) is not None:
        if isinstance(event, HandshakeCompleted):
            return "connected"
        if isinstance(event, ConnectionTerminated):
            return event.reason_phrase
    return "closing" if connection._close_event is not None else "nothing"


def test_aioquic_accepts_the_edge_by_the_network_and_the_connector_by_its_tunnel() -> None:
    chain = (WORLD.edge_leaf, WORLD.edge_ca)
    client = handshake(chain, WORLD.edge_key, WORLD.network, certificates.edge_name(WORLD.edge))
    assert outcome(client) == "connected"
    peer = client.tls._peer_certificate
    assert peer is not None
    assert peer.public_bytes(Encoding.DER) == WORLD.edge_leaf
    name = certificates.tunnel_name(WORLD.tunnel)
    assert outcome(handshake((WORLD.connector_leaf,), WORLD.connector_key, WORLD.tunnel_ca, name)) == "connected"


def test_aioquic_refuses_another_root_name_and_role() -> None:
    edge_name, tunnel_name = certificates.edge_name(WORLD.edge), certificates.tunnel_name(WORLD.tunnel)
    edge_chain = (WORLD.edge_leaf, WORLD.edge_ca)
    for chain, key, root, name in [
        (edge_chain, WORLD.edge_key, OTHER.network, edge_name),
        (edge_chain, WORLD.edge_key, WORLD.network, certificates.edge_name(OTHER.edge)),
        ((WORLD.connector_leaf, WORLD.tunnel_ca), WORLD.connector_key, WORLD.network, tunnel_name),
        (edge_chain, WORLD.edge_key, WORLD.tunnel_ca, edge_name),
        ((OTHER.connector_leaf, OTHER.tunnel_ca), OTHER.connector_key, WORLD.tunnel_ca, tunnel_name),
    ]:
        assert outcome(handshake(chain, key, root, name)) != "connected"


def test_a_ca_leaf_that_aioquic_accepts_is_found_by_check_leaf() -> None:
    key = keys.generate()
    leaf = strange_leaf(ca=True, key=key.public_key())
    name = certificates.tunnel_name(WORLD.tunnel)
    client = handshake((leaf,), key, WORLD.tunnel_ca, name)
    if outcome(client) == "connected":
        with pytest.raises(DeniedError, match="no leaf"):
            certificates.check_leaf(leaf, name)
    assert certificates.check_leaf(WORLD.connector_leaf, name) == keys.public(WORLD.connector_key)
