"""Record data out of the text that lists, zone files and policies write it in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from warren.fabric.core import dnswire as wire

TYPES: Final[dict[str, int]] = {
    "A": wire.A,
    "NS": wire.NS,
    "CNAME": wire.CNAME,
    "SOA": wire.SOA,
    "PTR": wire.PTR,
    "HINFO": wire.HINFO,
    "MX": wire.MX,
    "TXT": wire.TXT,
    "AAAA": wire.AAAA,
    "LOC": 29,
    "SRV": wire.SRV,
    "NAPTR": 35,
    "DNAME": wire.DNAME,
    "DS": wire.DS,
    "SSHFP": 44,
    "RRSIG": 46,
    "NSEC": 47,
    "DNSKEY": 48,
    "TLSA": 52,
    "SMIMEA": 53,
    "CDS": 59,
    "OPENPGPKEY": 61,
    "SVCB": wire.SVCB,
    "HTTPS": wire.HTTPS,
    "SPF": 99,
    "ANY": wire.ANY,
    "URI": 256,
    "CAA": 257,
}
_NAMES: Final = {number: name for name, number in TYPES.items()}
RCODES: Final = {
    "NOERROR": wire.NOERROR,
    "FORMERR": wire.FORMERR,
    "SERVFAIL": wire.SERVFAIL,
    "NXDOMAIN": wire.NXDOMAIN,
    "NOTIMP": wire.NOTIMP,
    "REFUSED": wire.REFUSED,
}
_SVC_KEYS: Final = {"alpn": 1, "no-default-alpn": 2, "port": 3, "ipv4hint": 4, "ech": 5, "ipv6hint": 6}


def type_of(text: str) -> int | None:
    """The number of a type, by name or as TYPE123 (RFC 3597, section 5)."""
    upper = text.upper()
    if upper.startswith("TYPE") and upper[4:].isdecimal() and len(upper) <= 9 and int(upper[4:]) < 65536:
        return int(upper[4:])
    return TYPES.get(upper)


def type_name(number: int) -> str:
    return _NAMES.get(number, f"TYPE{number}")


def rdata_of(kind: int, text: str) -> bytes:
    """Data of that type. ValueError: the text is none, or the type is not one that can be written here."""
    build = _BUILDERS.get(kind)
    if build is None:
        raise ValueError(f"records of type {type_name(kind)} can't be written here")
    return build(text.strip())


def address_type(text: str) -> tuple[int, bytes]:
    """(A or AAAA, data) of an address. ValueError if it is none."""
    address = ipaddress.ip_address(text)
    return (wire.A if address.version == 4 else wire.AAAA), address.packed


def _short(text: str) -> bytes:
    number = int(text)
    if not 0 <= number < 65536 or not text.isdecimal():
        raise ValueError(f"{text!r} is not between 0 and 65535")
    return number.to_bytes(2, "big")


def _mx(text: str) -> bytes:
    preference, host = text.split()
    return _short(preference) + wire.name_wire(host)


def _srv(text: str) -> bytes:
    priority, weight, port, target = text.split()
    return _short(priority) + _short(weight) + _short(port) + wire.name_wire(target)


def _txt(text: str) -> bytes:
    raw = text.strip('"').encode()
    if len(raw) > 4000:
        raise ValueError("longer than 4000 bytes")
    parts = [raw[at : at + 255] for at in range(0, len(raw), 255)] or [b""]
    return b"".join(bytes((len(part),)) + part for part in parts)


def _svcb(text: str) -> bytes:
    priority, target, *parameters = text.split()
    encoded: dict[int, bytes] = {}
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        encoded[_SVC_KEYS.get(key, -1)] = _svc_value(key, value.strip('"'))
    if -1 in encoded:
        raise ValueError(f"a parameter other than {', '.join(_SVC_KEYS)}")
    packed = b"".join(
        key.to_bytes(2, "big") + len(encoded[key]).to_bytes(2, "big") + encoded[key] for key in sorted(encoded)
    )
    return _short(priority) + wire.name_wire(target) + packed


def _svc_value(key: str, value: str) -> bytes:
    if key == "alpn":
        return b"".join(bytes((len(part.encode()),)) + part.encode() for part in value.split(","))
    if key == "port":
        return _short(value)
    if key == "ipv4hint":
        return b"".join(ipaddress.IPv4Address(part).packed for part in value.split(","))
    if key == "ipv6hint":
        return b"".join(ipaddress.IPv6Address(part).packed for part in value.split(","))
    return b""


_BUILDERS: Final[dict[int, Callable[[str], bytes]]] = {
    wire.A: lambda text: ipaddress.IPv4Address(text).packed,
    wire.AAAA: lambda text: ipaddress.IPv6Address(text).packed,
    wire.CNAME: wire.name_wire,
    wire.PTR: wire.name_wire,
    wire.NS: wire.name_wire,
    wire.MX: _mx,
    wire.SRV: _srv,
    wire.TXT: _txt,
    wire.SVCB: _svcb,
    wire.HTTPS: _svcb,
}
