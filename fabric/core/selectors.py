"""Who, from where, when: what rules of every kind select by. Knows nothing of DNS or flows.

A selector is configuration (`Who`, `When`), compiled once into a matcher. Within one field any value is enough; every
field that is given must hold.
"""

from __future__ import annotations

import datetime
import ipaddress
import zoneinfo
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from warren.fabric.core.errors import ConfigError

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES: Final = 24 * 60


class Subject(msgspec.Struct, frozen=True, cache_hash=True):
    """Who does something. Empty: not known."""

    device: str = ""
    """The device's name."""
    user: str = ""
    groups: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    address: str = ""
    """Source address, in presentation form."""
    vnet: str = ""


class Who(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By whom. Empty: everybody."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    """Source networks, as CIDRs or addresses."""


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    """At what time. An end at or before the start lies on the next day; the weekday is that of the start."""

    days: tuple[Day, ...] = ()
    start: str = "00:00"
    end: str = "24:00"
    zone: str = "UTC"
    """Name of a time zone, as in Europe/Berlin."""


class Networks:
    """A set of CIDRs; `in` takes an address in presentation form. One dict look-up for each prefix length in it."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for cidr in cidrs:
            try:
                network = ipaddress.ip_network(cidr, strict=False)
            except ValueError:
                raise ConfigError(f"{cidr!r} is no network; give a CIDR, as in 192.168.0.0/16") from None
            shift = network.max_prefixlen - network.prefixlen
            self._by_length.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)

    def __bool__(self) -> bool:
        return bool(self._by_length)

    def __contains__(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return self.contains(parsed.version, int(parsed))

    def contains(self, version: int, number: int) -> bool:
        """The same for an address as a number."""
        return any(number >> shift in known for (family, shift), known in self._by_length.items() if family == version)


class WhoMatcher:
    """`Who`, compiled."""

    def __init__(self, who: Who) -> None:
        self._users = frozenset(who.users)
        self._groups = frozenset(who.groups)
        self._devices = frozenset(who.devices)
        self._tags = frozenset(who.tags)
        self._networks = Networks(who.networks)

    def matches(self, subject: Subject) -> bool:
        """Whether the subject is meant. What is not known of it matches nothing that is asked for."""
        return (
            (not self._users or subject.user in self._users)
            and (not self._devices or subject.device in self._devices)
            and (not self._groups or not self._groups.isdisjoint(subject.groups))
            and (not self._tags or not self._tags.isdisjoint(subject.tags))
            and (not self._networks or subject.address in self._networks)
        )


class WhenMatcher:
    """`When`, compiled. The zone's table is read once, here."""

    def __init__(self, when: When) -> None:
        self._days = frozenset(_DAYS.index(day) for day in when.days) or frozenset(range(7))
        self._start = _minute(when.start)
        self._end = _minute(when.end)
        try:
            self._zone = zoneinfo.ZoneInfo(when.zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(f"{when.zone!r} is no time zone; give one as in Europe/Berlin, or UTC") from None

    def holds(self, at: float) -> bool:
        """Whether it does at that time: seconds since 1970, UTC."""
        local = datetime.datetime.fromtimestamp(at, self._zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self._start < self._end:
            return day in self._days and self._start <= minute < self._end
        if minute >= self._start:
            return day in self._days
        return minute < self._end and (day - 1) % 7 in self._days


def _minute(text: str) -> int:
    hours, colon, minutes = text.partition(":")
    if colon and hours.isdecimal() and minutes.isdecimal() and int(minutes) < 60:
        minute = int(hours) * 60 + int(minutes)
        if minute <= _MINUTES:
            return minute
    raise ConfigError(f"{text!r} is no time of day; give hours and minutes, as in 07:30")
