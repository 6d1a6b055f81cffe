"""Zones that nobody outside a private network can answer: their names are never sent to a public resolver. Pure."""

from __future__ import annotations

from typing import Final

from warren.fabric.core import dnswire as wire

_SPECIAL = """
    localhost invalid test onion local internal home.arpa alt resolver.arpa
    corp home lan mail intranet private
"""
"""RFC 6761, 6762, 7686, 8375, 9462, 9476; `internal` is reserved for private use; the last line are names that the
root does not delegate because private networks use them (RFC 6762, appendix G; name collision)."""

_REVERSE = [
    "10.in-addr.arpa",
    *(f"{n}.172.in-addr.arpa" for n in range(16, 32)),
    "168.192.in-addr.arpa",
    *(f"{n}.100.in-addr.arpa" for n in range(64, 128)),  # RFC 7793
    *("0.in-addr.arpa", "127.in-addr.arpa", "254.169.in-addr.arpa", "255.255.255.255.in-addr.arpa"),
    *("2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa"),
    *("18.198.in-addr.arpa", "19.198.in-addr.arpa"),
    "0." * 32 + "ip6.arpa",
    "1." + "0." * 31 + "ip6.arpa",
    *("d.f.ip6.arpa", "c.f.ip6.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa", "a.e.f.ip6.arpa", "b.e.f.ip6.arpa"),
    "8.b.d.0.1.0.0.2.ip6.arpa",
]
"""RFC 6303, section 4."""

PRIVATE_ZONES: Final = (*_SPECIAL.split(), *_REVERSE)

_WIRE: Final = frozenset(map(wire.name_wire, PRIVATE_ZONES))


def is_private(name: bytes) -> bool:
    """Whether a wire name (lower case) lies in one of them."""
    return any(suffix in _WIRE for suffix in wire.suffixes(name))
