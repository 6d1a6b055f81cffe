"""Which values may enter the store, and the one form in which each is kept. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import idna

from warren.edge.store.errors import InvalidError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

COMMENT_LIMIT = 200
"""Characters of a comment: a line on a screen."""
HOST_LIMIT = 255
"""Characters of the host name that a node says of itself; longer ones are cut."""
USER_LIMIT = 255
"""Characters of a user's name: an e-mail address has at most 254."""
LABELS_LIMIT = 64
"""Groups of a device, and tags: each policy decision looks at all of them."""
VNETS_LIMIT = 64
"""Virtual networks that a device's user may choose: a list that a person reads."""
NAME_LIMIT = 253
"""Characters of a DNS name (RFC 1035, section 2.3.4, without the root's dot)."""
SERVERS_LIMIT = 3
"""Name servers of a resolver route: what a C library would ask too."""
CIDR_LIMIT = 49
"""Characters of the longest CIDR: an IPv6 address in full, one with an IPv4 tail, and its prefix length."""

_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,62})\Z")
_VNET = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_ID = re.compile(r"[a-z0-9]{8,52}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_DOTS = re.compile("[\u3002\uff0e\uff61]")

_KEPT: tuple[tuple[Network, str], ...] = (
    (ipaddress.ip_network("0.0.0.0/8"), "this host"),
    (ipaddress.ip_network("127.0.0.0/8"), "loopback"),
    (ipaddress.ip_network("224.0.0.0/4"), "multicast"),
    (ipaddress.ip_network("255.255.255.255/32"), "broadcast"),
    (ipaddress.ip_network("::/127"), "loopback"),
    (ipaddress.ip_network("::ffff:0:0/96"), "IPv4 written as IPv6"),
    (ipaddress.ip_network("fe80::/10"), "link-local"),
    (ipaddress.ip_network("ff00::/8"), "multicast"),
)
"""Never carried. IPv4 link-local is not here: a metadata service may be wanted, and the connector asks for its name."""


def name(text: str, what: str) -> str:
    """The name of a tunnel or device (`what`). Raises InvalidError."""
    if not _NAME.match(text):
        raise InvalidError(f"{text[:80]!r} is no name of a {what}: 1 to 63 letters, digits, '-', '_' and '.'")
    return text


def virtual_networks(texts: Sequence[str]) -> list[str]:
    """Those that a device's user may choose, sorted, each once. Raises InvalidError."""
    unique = sorted({virtual_network(text) for text in texts})
    if len(unique) > VNETS_LIMIT:
        raise InvalidError(f"a device may choose among at most {VNETS_LIMIT} virtual networks")
    return unique


def virtual_network(text: str) -> str:
    """The name of a virtual network. Raises InvalidError."""
    if not _VNET.match(text):
        raise InvalidError(f"{text[:80]!r} is no name of a virtual network: 1 to 63 of a-z, 0-9 and '-'")
    return text


def identifier(text: str) -> str:
    """A random id. Raises InvalidError."""
    if not _ID.match(text):
        raise InvalidError(f"{text[:80]!r} is no id: 8 to 52 of a-z and 0-9")
    return text


def digest(text: str, what: str) -> str:
    """A SHA-256 in lower-case hex. Raises InvalidError."""
    if not _HASH.match(text):
        raise InvalidError(f"{what} has to be a SHA-256: 64 hexadecimal digits in lower case")
    return text


def comment(text: str) -> str:
    """A line for people. Raises InvalidError."""
    if len(text) > COMMENT_LIMIT or not text.isprintable():
        raise InvalidError(f"a comment has at most {COMMENT_LIMIT} characters and no control characters")
    return text


def user(text: str) -> str:
    """Who uses a device; "" for nobody in particular. Raises InvalidError."""
    if len(text) > USER_LIMIT or not text.isprintable() or text != text.strip():
        raise InvalidError(f"a user has at most {USER_LIMIT} characters, no control characters, no spaces around it")
    return text


def labels(texts: Sequence[str], what: str) -> list[str]:
    """Groups or tags (`what`) of a device, sorted, each once. Raises InvalidError."""
    for text in texts:
        if not _NAME.match(text):
            raise InvalidError(f"{text[:80]!r} is no name of a {what}: 1 to 63 letters, digits, '-', '_' and '.'")
    unique = sorted(set(texts))
    if len(unique) > LABELS_LIMIT:
        raise InvalidError(f"a device has at most {LABELS_LIMIT} {what}s")
    return unique


def said_host(text: str) -> str:
    """The name that a node gives itself, fit for a terminal. Never raises."""
    return "".join(character if character.isprintable() else "?" for character in text[:HOST_LIMIT])


def cidr(text: str) -> str:
    """An IPv4 or IPv6 network in its shortest form; a lone address is a network of one. Raises InvalidError."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=False) if len(text) <= CIDR_LIMIT else None
    except ValueError:
        network = None
    if network is None or "%" in text:
        raise InvalidError(f"{text[:80]!r} is no CIDR: write an address and a prefix length, as in 10.10.0.0/16")
    if int(ipaddress.ip_interface(text.strip()).ip) != int(network.network_address):
        raise InvalidError(f"{text[:80]} has bits set behind its prefix: write {network}")
    _refuse_kept(network)
    return str(network)


def _refuse_kept(network: Network) -> None:
    if network.prefixlen == 0:
        raise InvalidError(f"{network} is a default route, which is not carried: name the private networks one by one")
    for kept, what in _KEPT:
        if network.version == kept.version and network.overlaps(kept):
            raise InvalidError(f"{network} contains or lies in {kept} ({what}), which is not carried")


def hostname(text: str) -> str:
    """A DNS name in lower-case A-labels (RFC 5891), without the root's dot; `*.` in front is allowed.

    Raises InvalidError.
    """
    plain = _DOTS.sub(".", text.strip()[: 4 * NAME_LIMIT]).removesuffix(".")
    star = "*." if plain.startswith("*.") else ""
    _refuse_address(plain)
    ascii_name = star + ".".join(_label(label, text) for label in plain.removeprefix("*.").split("."))
    if len(ascii_name) > NAME_LIMIT:
        raise InvalidError(
            f"{text[:80]!r} is no hostname: it has {len(ascii_name)} characters, {NAME_LIMIT} are allowed"
        )
    if ascii_name.rpartition(".")[2].isdigit():
        raise InvalidError(f"{text[:80]!r} is no hostname: its last label may not be a number")
    return ascii_name


def zone(text: str) -> str:
    """A zone that servers of a private network answer for, in the form of `hostname`; of a CIDR its reverse zone.

    Raises InvalidError.
    """
    found = reverse_zone(text) if "/" in text else hostname(text)
    if found.startswith("*."):
        raise InvalidError(f"{text[:80]!r}: a zone is that name and all below it, write {found[2:]}")
    return found


def reverse_zone(text: str) -> str:
    """The zone with the names of a CIDR's addresses: 10.10.in-addr.arpa of 10.10.0.0/16. Raises InvalidError."""
    network = ipaddress.ip_network(cidr(text))
    step = 8 if network.version == 4 else 4
    if network.prefixlen % step or not network.prefixlen:
        raise InvalidError(f"{network} has no reverse zone of its own: its prefix length has to be divisible by {step}")
    labels = network.network_address.reverse_pointer.split(".")
    return ".".join(labels[(network.max_prefixlen - network.prefixlen) // step :])


def server(text: str) -> str:
    """A name server in a private network: ADDRESS, or ADDRESS:PORT for another port than 53. Raises InvalidError."""
    host, port = text.strip(), 53
    if host.startswith("[") or host.count(":") == 1:
        host, _, number = host.rpartition(":")
        port = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if address is None or "%" in host or not 1 <= port <= 65_535:
        raise InvalidError(f"{text[:80]!r} is no name server: write an address, as in 10.10.0.53 or [fd00::53]:5353")
    _refuse_kept(ipaddress.ip_network(address))
    shown = f"[{address}]" if address.version == 6 and port != 53 else str(address)
    return shown if port == 53 else f"{shown}:{port}"


def servers(texts: Sequence[str]) -> tuple[str, ...]:
    """Of a resolver route, in the order in which they are asked. Raises InvalidError."""
    found = tuple(dict.fromkeys(map(server, texts)))
    if not 1 <= len(found) <= SERVERS_LIMIT:
        raise InvalidError(f"a resolver route has 1 to {SERVERS_LIMIT} servers: give them with --server ADDRESS")
    return found


def split_server(text: str) -> tuple[str, int]:
    """Address and port of what `server` gave."""
    if text.count(":") == 1 or text.startswith("["):
        host, _, port = text.rpartition(":")
        return host.strip("[]"), int(port)
    return text, 53


def _label(label: str, text: str) -> str:
    try:
        encoded = label.lower() if label.isascii() else idna.encode(label, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        encoded = ""
    if not _LABEL.match(encoded):
        raise InvalidError(
            f"{text[:80]!r} is no hostname: labels of 1 to 63 letters, digits, '-' and '_' with dots between them, "
            "and at most one '*.' in front"
        )
    return encoded


def _refuse_address(text: str) -> None:
    try:
        ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return
    raise InvalidError(f"{text[:80]!r} is an address and no hostname: make it a route of kind ip")
