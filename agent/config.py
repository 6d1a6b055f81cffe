"""The agent's settings, and the files that make a device: its key, its network, the edges it knows."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.fabric.core import dnswire
from warren.fabric.core.engine import Controller
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.daemon.settings import Endpoint, LogSettings
from warren.fabric.engines import EngineName
from warren.fabric.identity import files, keys, statements

HOLD = 60.0
"""Seconds that flows are kept while their connector can't be reached (protocol.md, section 3)."""
STATE = Path("/var/lib/warren/agent")
SOCKET = Path("/run/warren/agent.sock")


class Cidr(str):
    """A network as text: 10.10.0.0/16."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Cidr:
        """Raises ValueError."""
        try:
            return cls(ipaddress.ip_network(str(text)))
        except ValueError as error:
            raise ValueError(f"{error}; use a CIDR such as 10.10.0.0/16") from None


class Domain(str):
    """A domain as text, without the last dot: home.example."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Domain:
        """Raises ValueError."""
        return cls(dnswire.name_text(dnswire.name_wire(str(text))).removesuffix("."))


class DnsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the names go that programs on this device ask for."""

    system: bool = True
    """Whether the system resolver is pointed at the agent."""
    scope: Literal["routed", "everything"] = "routed"
    """Routed: names of routes go to the edge, the rest to the resolvers of before. Everything: all go through the
    edge's filter."""
    fallback: bool = True
    """Of scope everything: the resolvers of before answer for names without a route while no edge can be asked."""
    local: tuple[Domain, ...] = ()
    """Domains that only the resolvers of before are asked about."""


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `warren agent up` runs with: agent.yaml and the flags."""

    state: Path = msgspec.field(default=STATE, name="state_dir")
    socket: Path = SOCKET
    interface: str = "warren0"
    include: tuple[Cidr, ...] = ()
    """CIDRs to capture; none: all that the edge routes."""
    exclude: tuple[Cidr, ...] = ()
    """CIDRs that are not captured, whatever the edge routes; stronger than `include`."""
    dns: DnsSettings = DnsSettings()
    hold: Annotated[float, msgspec.Meta(ge=1, le=900)] = HOLD
    """Seconds for which flows are kept whose connector's host is said to be gone."""
    engine: EngineName = "auto"
    controller: Controller = "warren"
    """Congestion control of the native engine."""
    metrics: Endpoint | None = None
    """Where /ready and /metrics are served; None: nowhere. `warren agent metrics` asks by the control socket."""
    log: LogSettings = LogSettings()


@dataclass(frozen=True, slots=True)
class Device:
    """An enrolled device, as its state directory holds it."""

    id: str
    name: str
    key: Ed25519PrivateKey
    network: bytes
    """DER of the network certificate."""
    edges: statements.EdgeList


def load_device(state: Path) -> Device:
    """Raises ConfigError if the device has not enrolled, or its files are damaged."""
    described = state / "device.json"
    if not described.exists():
        raise ConfigError(f"this device is not enrolled ({described} is missing): run `warren agent enrol`")
    try:
        said = json.loads(described.read_text())
        network = (state / "network.der").read_bytes()
        edges = statements.verify_edges((state / "edges").read_bytes(), network)
        return Device(str(said["id"]), str(said["name"]), keys.load(state / "device.key"), network, edges)
    except (OSError, ValueError, KeyError, DeniedError) as error:
        raise ConfigError(f"the enrolment in {state} is damaged ({error}): enrol again with a new key") from None


def save_device(state: Path, device: Device, signed_edges: bytes) -> None:
    """Writes everything, the description last, so that half an enrolment does not look like one."""
    files.private_directory(state)
    keys.save(state / "device.key", device.key, replace=True)
    files.write_private(state / "network.der", device.network, replace=True)
    files.write_private(state / "edges", signed_edges, replace=True)
    described = json.dumps({"id": device.id, "name": device.name}).encode()
    files.write_private(state / "device.json", described, replace=True)


def save_edges(state: Path, signed: bytes) -> None:
    """A newer list of edges, which the caller has verified."""
    files.write_private(state / "edges", signed, replace=True)


def require_root() -> None:
    """Raises ConfigError for a user who may not make a TUN device."""
    if os.geteuid() != 0:
        raise ConfigError("the agent makes a TUN device and routes: run it as root (sudo warren agent up)")
