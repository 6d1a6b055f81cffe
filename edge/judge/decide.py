"""May this flow open, and where? Device → destination → route → policy → tunnel, in that order. Pure.

1. The device is enrolled, by the thumbprint of its key.
2. The destination is one that a flow can have: an address takes a CIDR route, a name takes a hostname route.
3. A route of the device's virtual network leads there.
4. The policy allows it.
5. The route's tunnel is known.

Whether a connector of the tunnel is there is not asked here: the switch knows, and waits a little for one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from warren.edge.judge.policy import EVERY_DEVICE, Policy
from warren.edge.judge.routing import WILDCARD, Address
from warren.edge.store.errors import InvalidError
from warren.edge.store.records import Device, Route, Tunnel
from warren.edge.store.snapshot import Snapshot
from warren.edge.store.values import hostname, split_server
from warren.fabric.core.messages.session import Protocol
from warren.fabric.core.reasons import Reason
from warren.fabric.identity.grants import Grant, Issuer, Revision

GRANT_SECONDS = 60.0
"""How long a grant opens flows."""
PASS_SECONDS = 900.0
"""How long a pass asks for circuits: the longest hold time, 15 minutes."""
PORT_LIMIT = 65_535


@dataclass(frozen=True, slots=True)
class Allowed:
    """Yes: this device, through this tunnel, to exactly this destination. One of `address` and `host` is ""."""

    device: Device
    tunnel: Tunnel
    route: Route
    rule: str
    """Id of the rule that allowed it."""
    protocol: Protocol
    address: str
    host: str
    low: int
    high: int
    """Ports low to high, both included; 0 and 0 for ICMP."""
    epoch: int
    revision: int
    """Of the snapshot that decided."""

    @property
    def vnet(self) -> str:
        """The virtual network."""
        return self.route.vnet


@dataclass(frozen=True, slots=True)
class Refused:
    """No. `detail`: what exactly, for the user; it names the destination, so logs have it at DEBUG only."""

    reason: Reason
    detail: str = ""


Decision = Allowed | Refused


@dataclass(frozen=True, slots=True)
class Signed:
    """What the agent gets for an allowed flow, encoded."""

    grant: bytes
    permit: bytes
    """The pass for the tunnel."""


def decide(
    snapshot: Snapshot,
    thumbprint: str,
    protocol: str,
    port: int,
    now: float,
    *,
    address: str = "",
    host: str = "",
    resolver: str = "",
    policy: Policy = EVERY_DEVICE,
) -> Decision:
    """Decides one flow of the device with that key. Any strings are allowed in; never raises.

    `address` or `host` says the destination; `port` is ignored for ICMP; `now`: Unix time in seconds. `resolver`: id
    of the resolver route whose server is the destination; then no other route counts.
    """
    device = snapshot.device(thumbprint)
    if device is None:
        return Refused(Reason.DEVICE_UNKNOWN)
    target = _destination(protocol, port, address, host)
    if isinstance(target, Refused):
        return target
    shown = str(target)
    if resolver:
        route = _resolver_route(snapshot, device.vnet, resolver, shown, port)
    else:
        route = next(routes_to(snapshot, device.vnet, target), None)
    if route is None:
        return Refused(Reason.NO_ROUTE, f"no route in virtual network {device.vnet} leads to {shown}")
    port = 0 if protocol == "icmp" else port
    verdict = policy.judge(device, route, protocol, port, now)
    if not verdict.allowed:
        return Refused(verdict.reason or Reason.POLICY, f"rule {verdict.rule}")
    tunnel = snapshot.tunnel(route.tunnel)
    if tunnel is None:
        return Refused(Reason.NO_ROUTE, f"the tunnel of route {route.id} was deleted")
    return Allowed(
        device=device,
        tunnel=tunnel,
        route=route,
        rule=verdict.rule,
        protocol=_known(protocol),
        address="" if host else shown,
        host=shown if host else "",
        low=port,
        high=port,
        epoch=snapshot.epoch,
        revision=snapshot.revision,
    )


def destination(text: str) -> Address | str | Refused:
    """What a person writes: an address, or a name in any case."""
    try:
        return ipaddress.ip_address(text) if "%" not in text else _address(text)
    except ValueError:
        return _name(text)


def routes_to(snapshot: Snapshot, vnet: str, target: Address | str) -> Iterator[Route]:
    """The routes that lead to an address or to a name (as `destination` gives it): the first is the one it takes."""
    network = snapshot.network(vnet)
    return network.hosts.candidates(target) if isinstance(target, str) else network.addresses.candidates(target)


def grant(
    decision: Allowed,
    issuer: Issuer,
    now: float,
    *,
    grant_seconds: float = GRANT_SECONDS,
    pass_seconds: float = PASS_SECONDS,
) -> Signed:
    """Signs what was decided: a grant for exactly that, and a pass for the tunnel. `now`: Unix time in seconds."""
    device = decision.device
    said = Grant(
        device=device.id, thumbprint=device.thumbprint, user=device.user, tunnel=decision.tunnel.id,
        vnet=decision.vnet, protocol=decision.protocol, address=decision.address, host=decision.host,
        low=decision.low, high=decision.high, rule=decision.rule, route=decision.route.id,
        revision=Revision(decision.epoch, decision.revision), issued=now, expires=now + grant_seconds,
        key_id=issuer.key_id, edge=issuer.edge,
    )  # fmt: skip
    return Signed(issuer.grant(said), issuer.permit(device.thumbprint, decision.tunnel.id, now + pass_seconds))


def _resolver_route(snapshot: Snapshot, vnet: str, id_: str, address: str, port: int) -> Route | None:
    """The resolver route of that id, if it is the device's and this is a server of it."""
    route = snapshot.routes.get(id_)
    if route is None or route.vnet != vnet or (address, port) not in map(split_server, route.servers):
        return None
    return route


def _destination(protocol: str, port: int, address: str, host: str) -> Address | str | Refused:
    """The address, or the name in the form that routes and grants have; or why no flow can have it."""
    if protocol not in ("tcp", "udp", "icmp"):
        return Refused(Reason.UNSUPPORTED, f"protocol {protocol[:20]!r}")
    if protocol != "icmp" and not 1 <= port <= PORT_LIMIT:
        return Refused(Reason.PROTOCOL, f"port {port} is not from 1 to {PORT_LIMIT}")
    if bool(address) == bool(host):
        return Refused(Reason.PROTOCOL, "a destination is an address or a name, one of both")
    return _name(host) if host else _address(address)


def _name(host: str) -> str | Refused:
    try:
        name = hostname(host)
    except InvalidError as error:
        return Refused(Reason.NO_ROUTE, str(error))
    return Refused(Reason.NO_ROUTE, f"{name} is no name of one host") if name.startswith(WILDCARD) else name


def _address(text: str) -> Address | Refused:
    """Without a zone: a scoped address means something on one host only."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return Refused(Reason.PROTOCOL, f"{text[:50]!r} is no IP address")
    if "%" in text:
        return Refused(Reason.PROTOCOL, f"{text[:50]!r} means something on one host only")
    return address


def _known(protocol: str) -> Protocol:
    return "tcp" if protocol == "tcp" else "udp" if protocol == "udp" else "icmp"
