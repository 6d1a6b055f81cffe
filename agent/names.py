"""Synthetic addresses: (virtual network, name) ↔ an address out of a range that is the agent's own.

`Names` is pure: chosen by keyed hash, so that the same name gets the same address again even if the journal was lost
(a program that resolved once and never again still reaches the right host), and given to no other name within 24 h of
its last use. `NameJournal` keeps key, range and uses in a bounded file. Times are seconds of the wall clock, passed in
as `now`, for they must mean something after a restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import NamedTuple, Self

import structlog

from warren.fabric.core.errors import ConfigError

RANGES = (IPv4Network("100.80.0.0/16"), IPv4Network("198.18.0.0/16"), IPv4Network("10.211.0.0/16"))
"""Where synthetic addresses come from: the first that collides with nothing on the host."""
HOSTS6 = (IPv6Network("fd77:6172:7265:6e00::/64"), IPv6Network("fdb3:91c4:5d20:1::/64"))
"""Where the TUN's own IPv6 address comes from: the first that collides with nothing on the host."""
TTL_S = 30
"""Of an answer with a synthetic address."""
HOLD_S = 24 * 3600.0
"""After its last use an address goes to no other name for so long: longer than programs cache what they resolved."""
RESERVED = 16
"""First addresses of the range that are no name's: the TUN's own (`.1`), the virtual resolver (`.2`), and to spare."""
PROBES = 16
"""Places that a name's own hash may choose before any free one is taken: one name in 65,536 of a range half full."""
MAX_NAME = 253
"""Characters of a name (RFC 1035, without the last dot)."""
MIN_PREFIX, MAX_PREFIX = 12, 28
"""Of a range: no more than a million names in memory (200 bytes each), and room for some beside the reserved ones."""

_log = structlog.get_logger(__name__)

_CARRIER_GRADE = IPv4Network("100.64.0.0/10")  # RFC 6598
_KEY_SIZE = 16
_RECORD_EVERY_S = 3600.0  # a use is written down at most so often for a name; reuse waits for as much longer
_SPARE_LINES = 1_024  # lines of the file that are out of date before it is written anew, at least


class Owner(NamedTuple):
    """Whose address it is. `name`: lower case, without the last dot."""

    virtual_network: str
    name: str


@dataclass(frozen=True, slots=True)
class Full:
    """Every address of the range was used within 24 h: answer SERVFAIL. `until`: when the first one comes free."""

    until: float


class _Use(NamedTuple):
    owner: Owner
    at: float


def choose_range(taken: Iterable[IPv4Network], candidates: Sequence[IPv4Network] = RANGES) -> IPv4Network | None:
    """The first candidate that overlaps nothing of `taken` (addresses and routes of the host); None if all do.

    Whoever has an address out of 100.64.0.0/10 on this host is taken to own all of it: Tailscale's firewall drops the
    whole block from other interfaces.
    """
    occupied = list(taken)
    if any(network.subnet_of(_CARRIER_GRADE) for network in occupied):
        occupied.append(_CARRIER_GRADE)
    for candidate in candidates:
        if not any(candidate.overlaps(network) for network in occupied):
            return candidate
    return None


def choose_host6(taken: Iterable[IPv4Network | IPv6Network]) -> IPv6Network | None:
    """The first of HOSTS6 that overlaps nothing of `taken`; None: the agent does without IPv6."""
    occupied = [network for network in taken if isinstance(network, IPv6Network)]
    return next((one for one in HOSTS6 if not any(one.overlaps(network) for network in occupied)), None)


class Names:
    """The pure core. `uses`: what a journal kept, address index → (owner, last use)."""

    def __init__(self, key: bytes, network: IPv4Network, uses: Mapping[int, tuple[Owner, float]] | None = None) -> None:
        if not MIN_PREFIX <= network.prefixlen <= MAX_PREFIX:
            raise ConfigError(f"synthetic range {network}: choose a prefix from /{MIN_PREFIX} to /{MAX_PREFIX}")
        self.network = network
        self._key = key
        self._first = int(network.network_address)
        self._size = network.num_addresses - 1  # the last one is a broadcast address to some
        self._by_index: dict[int, _Use] = {}
        self._index: dict[Owner, int] = {}
        self._full_until = 0.0
        for index, (owner, at) in (uses or {}).items():
            if RESERVED <= index < self._size and owner not in self._index:
                self._set(index, _Use(owner, at))

    def __len__(self) -> int:
        return len(self._by_index)

    @property
    def host_address(self) -> IPv4Address:
        """The TUN's own."""
        return self.network[1]

    @property
    def resolver_address(self) -> IPv4Address:
        """The virtual resolver's."""
        return self.network[2]

    def address_of(self, virtual_network: str, name: str, now: float) -> IPv4Address | Full:
        """The address of a name, for an answer; counts as a use. `name`: at most MAX_NAME characters, any case."""
        owner = Owner(virtual_network, name.lower().rstrip(".")[:MAX_NAME])
        index = self._index.get(owner)
        if index is None:
            index = self._choose(owner, now)
            if index is None:
                return Full(self._full_until)
        self._set(index, _Use(owner, now))
        return IPv4Address(self._first + index)

    def owner_of(self, address: IPv4Address | bytes, now: float) -> Owner | None:
        """Whose address an app connects to (also packed); counts as a use, as every look at a living flow should."""
        index = int(IPv4Address(address)) - self._first
        use = self._by_index.get(index)
        if use is None:
            return None
        self._set(index, _Use(use.owner, now))
        return use.owner

    def last_use(self, address: IPv4Address) -> tuple[int, Owner, float] | None:
        """Index, owner and time of the last use, for the journal."""
        index = int(address) - self._first
        use = self._by_index.get(index)
        return (index, use.owner, use.at) if use else None

    def _choose(self, owner: Owner, now: float) -> int | None:
        places = self._size - RESERVED
        for probe in range(PROBES):
            text = f"{probe}\0{owner.virtual_network}\0{owner.name}".encode(errors="surrogatepass")
            digest = hashlib.blake2b(text, key=self._key, digest_size=8).digest()
            index = RESERVED + int.from_bytes(digest, "big") % places
            if self._is_free(index, now):
                return index
        if len(self._by_index) >= places and now < self._full_until:
            return None  # known: a flood of names does not search the range again and again
        free = next((index for index in range(RESERVED, self._size) if self._is_free(index, now)), None)
        if free is None:
            self._full_until = min(use.at for use in self._by_index.values()) + HOLD_S + _RECORD_EVERY_S
        return free

    def _is_free(self, index: int, now: float) -> bool:
        use = self._by_index.get(index)
        return use is None or now >= use.at + HOLD_S + _RECORD_EVERY_S

    def _set(self, index: int, use: _Use) -> None:
        before = self._by_index.get(index)
        if before is not None and before.owner != use.owner:
            del self._index[before.owner]
        elif before is not None:
            use = _Use(use.owner, max(use.at, before.at))  # the wall clock may go back; a last use does not
        self._by_index[index] = use
        self._index[use.owner] = index


class NameJournal:
    """`Names` with its file: the first line has key and range, each further one a use. Blocking writes, one short line.

    Not synced to disk: what a power loss takes is chosen again by the same hash.
    """

    def __init__(self, path: Path, names: Names, key: bytes, written: dict[int, tuple[Owner, float]]) -> None:
        self.names = names
        self._path = path
        self._key = key
        self._written = written
        self._lines = 0
        self._fd = -1
        self._rewrite()

    @classmethod
    def open(
        cls,
        path: Path,
        taken: Iterable[IPv4Network],
        candidates: Sequence[IPv4Network] = RANGES,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Read the file, or begin one. The range it has stays while it collides with nothing; `ConfigError` if none is
        left, or the file can't be written. The key stays for ever, a file that can't be read is begun anew."""
        occupied = list(taken)
        key, last, written = _load(path)
        order = [last, *(c for c in candidates if c != last)] if last in candidates else list(candidates)
        chosen = choose_range(occupied, [network for network in order if network is not None])
        if chosen is None:
            raise ConfigError("every range for synthetic addresses is in use on this host: configure another")
        if chosen != last:
            written = {}
        key = key or randomness(_KEY_SIZE)
        try:
            return cls(path, Names(key, chosen, written), key, written)
        except OSError as error:
            raise ConfigError(f"can't write {path}: {error.strerror}") from error

    def address_of(self, virtual_network: str, name: str, now: float) -> IPv4Address | Full:
        """See `Names`; a new use is written down before it is answered, unless the disk is full (logged)."""
        address = self.names.address_of(virtual_network, name, now)
        if isinstance(address, IPv4Address):
            self._note(address)
        return address

    def owner_of(self, address: IPv4Address | bytes, now: float) -> Owner | None:
        """See `Names`."""
        owner = self.names.owner_of(address, now)
        if owner is not None:
            self._note(IPv4Address(address))
        return owner

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _note(self, address: IPv4Address) -> None:
        found = self.names.last_use(address)
        if found is None:
            return
        index, owner, at = found
        known = self._written.get(index)
        if known is not None and known[0] == owner and at < known[1] + _RECORD_EVERY_S:
            return
        self._written[index] = (owner, at)
        try:
            if self._lines > 2 * len(self._written) + _SPARE_LINES:
                self._rewrite()
            else:
                os.write(self._fd, _line(index, owner, at))
                self._lines += 1
        except OSError as error:  # the answer stands: the hash gives it again
            _log.warning("names.journal_not_written", error=error.strerror)

    def _rewrite(self) -> None:
        fresh = self._path.with_suffix(".new")
        head = json.dumps({"key": self._key.hex(), "range": str(self.names.network)}).encode() + b"\n"
        lines = [_line(index, owner, at) for index, (owner, at) in self._written.items()]
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.writelines([head, *lines])
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(lines)


def _line(index: int, owner: Owner, at: float) -> bytes:
    return json.dumps([index, owner.virtual_network, owner.name, int(at)]).encode() + b"\n"


def _load(path: Path) -> tuple[bytes, IPv4Network | None, dict[int, tuple[Owner, float]]]:
    """Key, range, uses. Total: a line that can't be read, or one cut short, is passed over."""
    uses: dict[int, tuple[Owner, float]] = {}
    try:
        head, *lines = path.read_bytes().split(b"\n")
        first = json.loads(head)
        key, network = bytes.fromhex(first["key"]), IPv4Network(first["range"])
    except (OSError, ValueError, KeyError, TypeError):
        return b"", None, uses
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            index, virtual_network, name, at = json.loads(line)
            uses[int(index)] = (Owner(str(virtual_network), str(name)), float(at))
    return key, network, uses
