"""A topology out of a YAML file. What is wrong with a file is told in one line that names the file and the place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from warren.lab.firewalls import FIREWALLS
from warren.lab.state import LabError
from warren.lab.topology import HostSpec, Interface, Network, Route, ServiceName, Topology

T = TypeVar("T")
LARGEST_FILE = 1 << 20
Answer = Literal["unreachable", "prohibit", "blackhole"]


class CardSection(msgspec.Struct, forbid_unknown_fields=True):
    """`name`: of the card in its host. `more`: further addresses."""

    network: str
    address: str
    name: str = "eth0"
    more: tuple[str, ...] = ()


class NetworkSection(msgspec.Struct, forbid_unknown_fields=True):
    """Of nothing: a cable. `switch`: the host that the network's bridge stands in."""

    mtu: Annotated[int, msgspec.Meta(ge=576, le=9216)] = 1500
    gso_max_segs: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    switch: str | None = None


class HostSection(msgspec.Struct, forbid_unknown_fields=True):
    """`routes`: to a network or `default`, the next hop or one of the answers. `firewall`: a name or a ruleset.

    `services`: what `start_services` starts there. `names`: addresses that its name server knows, and `zone`
    more records, as in a zone file; it answers on `names_on`, an address of the host (by default the first).
    """

    cards: tuple[CardSection, ...]
    routes: dict[str, str] = {}
    loopback: tuple[str, ...] = ()
    forwards: bool = False
    firewall: str = ""
    nameserver: str | None = None
    search: str | None = None
    congestion: str | None = None
    sysctls: dict[str, str] = {}
    services: tuple[ServiceName, ...] = ()
    names: dict[str, str] = {}
    zone: str = ""
    names_on: str | None = None


class FileSections(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    networks: dict[str, Any]
    hosts: dict[str, Any]


def load(path: Path) -> Topology:
    """Raises LabError when there is no such file, or something in it cannot be."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise LabError(f"{path}: larger than a topology can be")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"topology {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Topology:
    """`source`: what errors call the file."""
    try:
        plain = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise LabError(f"{source}: line {line}: {error.problem}") from None
    except YAMLError as error:
        raise LabError(f"{source}: {' '.join(str(error).split())}") from None
    sections = _convert(plain, FileSections, source)
    networks = {
        name: _convert(found or {}, NetworkSection, f"{source}: networks.{name}")
        for name, found in sections.networks.items()
    }
    hosts = {name: _convert(found, HostSection, f"{source}: hosts.{name}") for name, found in sections.hosts.items()}
    try:
        return Topology(
            name=sections.name,
            networks=tuple(Network(name, one.mtu, one.gso_max_segs, one.switch) for name, one in networks.items()),
            hosts=tuple(_host(name, one, f"{source}: hosts.{name}") for name, one in hosts.items()),
        )
    except ValueError as error:
        raise LabError(f"{source}: {error}") from None


def _convert(plain: object, kind: Callable[..., T], place: str) -> T:
    try:
        return msgspec.convert(plain, type=kind)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        within = path.rstrip("`")
        raise LabError(f"{place}{within}: {problem}") from None


def _host(name: str, section: HostSection, place: str) -> HostSpec:
    return HostSpec(
        name=name,
        interfaces=tuple(Interface(card.network, card.address, card.name, card.more) for card in section.cards),
        routes=tuple(_route(to, via) for to, via in section.routes.items()),
        loopback=section.loopback,
        forwards=section.forwards,
        firewall=_firewall(section.firewall, place),
        nameserver=section.nameserver,
        search=section.search,
        congestion=section.congestion,
        sysctls=section.sysctls,
        services=section.services,
        names=section.names,
        zone=section.zone,
        names_on=section.names_on,
    )


def _route(to: str, via: str) -> Route:
    answers: Mapping[str, Answer] = {"unreachable": "unreachable", "prohibit": "prohibit", "blackhole": "blackhole"}
    return Route(to, kind=answers[via]) if via in answers else Route(to, via=via)


def _firewall(said: str, place: str) -> str:
    if "{" in said or not said:
        return said
    if said not in FIREWALLS:
        raise LabError(f"{place}.firewall: {said!r} is neither a ruleset nor one of {', '.join(FIREWALLS)}")
    return FIREWALLS[said]
