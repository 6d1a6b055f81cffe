"""Certificates and keys, from PEM in memory to what aioquic wants; the checks that it leaves out."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from aioquic.tls import load_pem_private_key, load_pem_x509_certificates
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from warren.fabric.core.errors import ConfigError


class Identity(NamedTuple):
    """What a server shows: its leaf, the certificates between leaf and root, the leaf's key."""

    leaf: x509.Certificate
    between: list[x509.Certificate]
    key: PrivateKeyTypes


@lru_cache(maxsize=8)
def identity(chain: bytes, key: bytes) -> Identity:
    """Reads PEM (leaf first) and PKCS 8. Raises ConfigError."""
    try:
        certificates = load_pem_x509_certificates(chain)
    except ValueError as error:
        raise ConfigError(f"the certificate chain is no PEM: {error}") from error
    if not certificates:
        raise ConfigError("the certificate chain is empty: it takes the leaf first, then what leads to the root")
    try:
        private = load_pem_private_key(key)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the private key is no PEM in PKCS 8 without a password: {error}") from error
    return Identity(certificates[0], certificates[1:], private)


def check_root(root: bytes) -> None:
    """Raises ConfigError unless `root` is the PEM of exactly one certificate."""
    try:
        found = len(load_pem_x509_certificates(root))
    except ValueError as error:
        raise ConfigError(f"the root certificate is no PEM: {error}") from error
    if found != 1:
        raise ConfigError(f"{found} root certificates: it takes exactly one")


def leaf_fault(leaf: x509.Certificate) -> str | None:
    """Why a leaf may not stand for a server though its chain and name are right; None if it may.

    aioquic checks dates, name and chain, but neither basic constraints nor extended key usage of the leaf.
    """
    try:
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
        if constraints.ca:
            return "the server's certificate is a CA (CA:TRUE) and may not stand for a server"
    except x509.ExtensionNotFound:
        pass
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return "the extensions of the server's certificate can't be read"
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return None if ExtendedKeyUsageOID.SERVER_AUTH in usage else "the server's certificate is not for serverAuth"


def der(leaf: x509.Certificate) -> bytes:
    """The certificate as DER."""
    return leaf.public_bytes(Encoding.DER)
