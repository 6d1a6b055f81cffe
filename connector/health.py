"""What the connector tells of itself: whether it is ready, its metrics, and which addresses are its own."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

from warren.connector import icmp
from warren.connector.config import ConnectorConfig
from warren.connector.gate import Ceiling, IPAddress
from warren.fabric.daemon.metrics import Family, counted, counter, gauge

if TYPE_CHECKING:
    from warren.connector.app import Connector


async def ready(connector: Connector) -> tuple[bool, dict[str, Any]]:
    """Ready: attached to at least one edge, accepted by its judge, and not being stopped.

    `icmp`: by which sockets it pings, "unprivileged", "raw" or "none". `phases`: peer connections in each phase of
    congestion control.
    """
    edges = [{"edge": str(node.edge), "state": node.state, "reason": node.reason} for node in connector.nodes]
    attached = any(node.state == "connected" for node in connector.nodes)
    more = {
        "tunnel": connector.token.name,
        "draining": connector.draining,
        "icmp": icmp.kind_of_socket(),
        "engine": connector.engine.name,
        "controller": connector.engine.controller,
        "phases": connector.phases(),
        "edges": edges,
    }
    return attached and not connector.draining, more


def families(connector: Connector) -> list[Family]:
    counts = connector.counts
    refused = {reason.word: count for reason, count in counts.refused.items()}
    dropped = Counter[str]()
    for node in connector.nodes:
        for circuit_socket in node.sockets:
            dropped.update(circuit_socket.dropped)
    up = tuple(({"edge": str(node.edge)}, int(node.state == "connected")) for node in connector.nodes)
    drops = tuple(
        ({"protocol": protocol, "reason": reason}, count)
        for protocol, reasons in counts.dropped.items()
        for reason, count in sorted(reasons.items())
    )
    return [
        Family("warren_connector_edge_connected", "gauge", "Attached to this edge, and accepted.", up),
        gauge("warren_connector_draining", "Being stopped: no new flows.", int(connector.draining)),
        gauge("warren_connector_agents", "Agents with a peer connection.", len(connector)),
        gauge("warren_connector_flows", "Flows that are open.", counts.open),
        counter("warren_connector_flows_opened_total", "Flows that were opened.", counts.opened),
        counted("warren_connector_flows_refused_total", "Flows that were refused.", "reason", refused),
        Family("warren_connector_datagrams_dropped_total", "counter", "UDP and ICMP that was not passed on.", drops),
        counted("warren_connector_packets_dropped_total", "Packets from edges that were dropped.", "reason", dropped),
    ]


def own_listeners_spared(config: ConnectorConfig) -> Ceiling:
    """The ceiling, without what the connector listens on itself: nobody gets there through the tunnel."""
    listener = config.metrics
    if listener is None:
        return config.ceiling
    host = ipaddress.ip_address(listener.host)

    def own(address: IPAddress, port: int) -> bool:
        return port == listener.port and (address == host or (host.is_unspecified and _is_local(address)))

    return config.ceiling.sparing(own)


def _is_local(address: IPAddress) -> bool:
    """Whether this host has the address: only then a socket can be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
