"""Small Ed25519 certificates for tests: made in memory, never stored."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

SERVER_NAME = "a1b2.edge.warren.internal"


class Shown(NamedTuple):
    """What client and server need: the root's PEM, the server's chain (leaf first) and key as PEM."""

    root: bytes
    chain: bytes
    key: bytes


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    name: str, key: Ed25519PrivateKey, issuer: str, issuer_key: Ed25519PrivateKey, *, ca: bool, dns: str | None = None
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if dns is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
    return builder.sign(issuer_key, None)


def certificates(name: str = SERVER_NAME, *, ca_leaf: bool = False) -> Shown:
    """A root, a CA under it, and a leaf for `name` (with CA:TRUE if asked for)."""
    root_key, ca_key, leaf_key = (Ed25519PrivateKey.generate() for _ in range(3))
    root = _certificate("root", root_key, "root", root_key, ca=True)
    between = _certificate("edge ca", ca_key, "root", root_key, ca=True)
    leaf = _certificate("leaf", leaf_key, "edge ca", ca_key, ca=ca_leaf, dns=name)
    return Shown(
        root.public_bytes(Encoding.PEM),
        leaf.public_bytes(Encoding.PEM) + between.public_bytes(Encoding.PEM),
        leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
