"""X.509 for QUIC's handshakes: two small trees, verified offline (RFC 5280, the part that is needed).

    network (self-signed, CA) ── edge CA ── edge leaf         ID.edge.warren.internal
    tunnel CA (self-signed)   ── connector leaf               ID.tunnel.warren.internal

Certificates are DER everywhere; `pem` writes them as engines want them. Dates say nothing (1970 to 9999): signed
revisions and the list of edges decide validity, and boards without a clock can verify.
"""

from __future__ import annotations

import base64
import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

EDGE_ZONE = "edge.warren.internal"
TUNNEL_ZONE = "tunnel.warren.internal"
CERTIFICATE_LIMIT = 4096
"""Bytes of a certificate that is looked at: ours have less than 500."""

_FIRST = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_SIGNATURE_HEADER = b"\x03\x41\x00"
"""BIT STRING, 65 bytes, no unused bits: parsers let other values of the last byte pass where the bits are zero."""
_PARSE_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def edge_name(edge: str) -> str:
    """The DNS name by which nodes verify the edge with this id."""
    return f"{edge}.{EDGE_ZONE}"


def tunnel_name(tunnel: str) -> str:
    """The DNS name by which agents verify a connector of the tunnel with this id."""
    return f"{tunnel}.{TUNNEL_ZONE}"


# ---- making them ----


def make_network(key: Ed25519PrivateKey) -> bytes:
    """The network's own certificate, the root of trust for every node."""
    return _authority("warren network", key.public_key(), "", key, None, path_length=1)


def make_edge_authority(network_key: Ed25519PrivateKey, network: bytes, public: bytes) -> bytes:
    """The edge CA: certifies edges. `public`: its raw key."""
    return _authority(
        "warren edges", Ed25519PublicKey.from_public_bytes(public), "", network_key, network, path_length=0
    )


def make_tunnel_authority(key: Ed25519PrivateKey, tunnel: str) -> bytes:
    """The CA of one tunnel: its connectors make their own leaves under it."""
    return _authority("warren tunnel", key.public_key(), tunnel, key, None, path_length=0)


def make_edge(authority_key: Ed25519PrivateKey, authority: bytes, edge: str, public: bytes) -> bytes:
    """The leaf of the edge with the id `edge`, for its raw public key."""
    return _leaf(authority_key, authority, edge_name(edge), public)


def make_connector(authority_key: Ed25519PrivateKey, authority: bytes, tunnel: str, public: bytes) -> bytes:
    """The leaf of one connector process, for its raw public key."""
    return _leaf(authority_key, authority, tunnel_name(tunnel), public)


# ---- reading and verifying them ----


def pem(*certificates: bytes) -> bytes:
    """DER certificates as one PEM text, in this order."""
    return b"".join(_pem(certificate) for certificate in certificates)


def from_pem(text: bytes) -> list[bytes]:
    """The DER certificates of a PEM text, in its order. Raises ValueError if there is none."""
    return [
        certificate.public_bytes(serialization.Encoding.DER) for certificate in x509.load_pem_x509_certificates(text)
    ]


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of a certificate's DER."""
    return hashlib.sha256(certificate).digest()


def verify_authority(certificate: bytes, issuer: bytes | None = None) -> bytes:
    """The raw public key of a CA certificate: self-signed, or signed by `issuer` (DER). Raises DeniedError."""
    parsed = _parse(certificate)
    _require(_is_authority(parsed), "a CA certificate was expected")
    _verify_signature(parsed, parsed if issuer is None else _parse(issuer))
    return _raw_key(parsed)


def verify_connector(leaf: bytes, authority: bytes, tunnel: str) -> bytes:
    """The raw public key of a connector's leaf under the tunnel's CA.

    Raises DeniedError(BAD_PROOF) for a CA:TRUE leaf, another name, key or issuer, or bytes that are no certificate.
    """
    verify_authority(authority)
    return _verify_leaf(leaf, authority, tunnel_name(tunnel))


def verify_edge(leaf: bytes, authority: bytes, network: bytes, edge: str) -> bytes:
    """The raw public key of an edge's leaf under the edge CA under the network certificate. Raises DeniedError."""
    verify_authority(network)
    verify_authority(authority, network)
    return _verify_leaf(leaf, authority, edge_name(edge))


def check_leaf(leaf: bytes, name: str) -> bytes:
    """The raw public key of a leaf whose chain somebody else verified (the engine): CA:FALSE, serverAuth, Ed25519,
    exactly this one DNS name. Raises DeniedError(BAD_PROOF)."""
    parsed = _parse(leaf)
    _require(not _is_authority(parsed), "a CA certificate is no leaf")
    try:
        constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value
        usages = list(parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        names = list(parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound as error:
        raise DeniedError(Reason.BAD_PROOF, f"the leaf certificate lacks an extension: {error}") from None
    _require(not constraints.ca, "a CA certificate is no leaf")
    _require(usages == [ExtendedKeyUsageOID.SERVER_AUTH], "the leaf certificate is not for servers")
    _require(names == [x509.DNSName(name)], f"the leaf certificate is not for {name}")
    return _raw_key(parsed)


# ---- details ----


def _authority(
    what: str,
    public: Ed25519PublicKey,
    identity: str,
    signer: Ed25519PrivateKey,
    issuer: bytes | None,
    *,
    path_length: int,
) -> bytes:
    identity = identity or hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{what} {identity}")])
    issuer_name = subject if issuer is None else x509.load_der_x509_certificate(issuer).subject
    builder = _builder(subject, issuer_name, public)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    if issuer is not None:
        builder = builder.add_extension(_authority_key(signer), critical=False)
    return builder.sign(signer, None).public_bytes(serialization.Encoding.DER)


def _leaf(signer: Ed25519PrivateKey, issuer: bytes, name: str, public: bytes) -> bytes:
    """The subject is empty, so the alternative name is critical (RFC 5280, section 4.1.2.6)."""
    issuer_name = x509.load_der_x509_certificate(issuer).subject
    builder = _builder(x509.Name([]), issuer_name, Ed25519PublicKey.from_public_bytes(public))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
    builder = builder.add_extension(_authority_key(signer), critical=False)
    return builder.sign(signer, None).public_bytes(serialization.Encoding.DER)


def _builder(subject: x509.Name, issuer: x509.Name, public: Ed25519PublicKey) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=public)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(_FIRST).not_valid_after(_LAST)


def _authority_key(signer: Ed25519PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def _parse(certificate: bytes) -> x509.Certificate:
    """Extensions are parsed here too, so that nothing below raises for what a peer sent."""
    _require(len(certificate) <= CERTIFICATE_LIMIT, "a certificate is too long")
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        known = all(not extension.critical or type(extension.value) in _UNDERSTOOD for extension in parsed.extensions)
        key = parsed.public_key()
    except _PARSE_ERRORS:
        raise DeniedError(Reason.BAD_PROOF, "what should be a certificate is none") from None
    _require(certificate[-67:-64] == _SIGNATURE_HEADER, "a certificate's signature is not of Ed25519")
    _require(known, "a certificate has a critical extension that is not understood")
    _require(isinstance(key, Ed25519PublicKey), "a certificate's key is not of Ed25519")
    return parsed


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _verify_leaf(leaf: bytes, authority: bytes, name: str) -> bytes:
    raw = check_leaf(leaf, name)
    _verify_signature(_parse(leaf), _parse(authority))
    return raw


def _verify_signature(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_PARSE_ERRORS):
        raise DeniedError(Reason.BAD_PROOF, "a certificate was not signed by the expected key") from None


def _raw_key(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise DeniedError(Reason.BAD_PROOF, "a certificate's key is not of Ed25519")
    return key.public_bytes_raw()


def _pem(certificate: bytes) -> bytes:
    text = base64.encodebytes(certificate).replace(b"\n", b"")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])


def _require(condition: bool, detail: str) -> None:
    if not condition:
        raise DeniedError(Reason.BAD_PROOF, detail)


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
